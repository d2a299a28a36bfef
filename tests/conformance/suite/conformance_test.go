// Package suite runs the official Gateway API conformance suite, at the version that go.mod names, with all of the
// suite's own flags: -gateway-class, -conformance-profiles, -report-output, -run-test and so on.
package suite

import (
	"flag"
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/tests"
)

// The suite of v1.6.1 writes its report before the tests that call t.Parallel have run, and counts each of them as
// passed (kubernetes-sigs/gateway-api#5142). One after the other, the report says what happened.
var sequential = flag.Bool("sequential", true, "run one test after the other, so that the report is true")

func TestConformance(t *testing.T) {
	if *sequential {
		for i := range tests.ConformanceTests {
			tests.ConformanceTests[i].Parallel = false
		}
	}
	conformance.RunConformance(t)
}
