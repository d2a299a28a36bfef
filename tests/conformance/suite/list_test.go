package suite

import (
	"encoding/json"
	"flag"
	"os"
	"testing"

	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
)

var listOutput = flag.String("list-output", "", "write which test counts for which profile here, as JSON")

type entry struct {
	Features []string          `json:"features"`
	Profiles map[string]string `json:"profiles"` // name: "core" or "extended"
}

// TestList tells which tests count for which profile: those all of whose features belong to it, by the rule of the
// suite's own report. The runner holds the results that `go test` prints against it.
func TestList(t *testing.T) {
	if *listOutput == "" {
		t.Skip("no -list-output")
	}
	profiles := []suite.ConformanceProfile{suite.GatewayHTTPConformanceProfile, suite.GatewayGRPCConformanceProfile}
	entries := map[string]entry{}
	for _, test := range tests.ConformanceTests {
		one := entry{Profiles: map[string]string{}}
		for _, feature := range test.Features {
			one.Features = append(one.Features, string(feature))
		}
		for _, profile := range profiles {
			if profile.CoreFeatures.HasAll(test.Features...) {
				one.Profiles[string(profile.Name)] = "core"
			} else if profile.CoreFeatures.Union(profile.ExtendedFeatures).HasAll(test.Features...) {
				one.Profiles[string(profile.Name)] = "extended"
			}
		}
		entries[test.ShortName] = one
	}
	octets, err := json.MarshalIndent(entries, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(*listOutput, append(octets, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}
