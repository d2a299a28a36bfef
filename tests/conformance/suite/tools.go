//go:build tools

package suite

// The server that the suite's backend Pods run, kept in go.mod.
import _ "sigs.k8s.io/gateway-api/conformance/echo-basic"
