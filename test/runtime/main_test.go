// Package runtime is the black-box conformance suite of an OCI runtime: every test names the requirement that it checks.
// TARE_RUNTIME chooses the binary; without it tare-runtime is built and tested.
package runtime

import (
	"testing"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

type (
	H      = ocitest.H
	Bundle = ocitest.Bundle
	Case   = ocitest.Case
	Cmd    = ocitest.Cmd
	Result = ocitest.Result
)

var (
	row      = ocitest.Row
	runCases = ocitest.RunCases
)

func TestMain(m *testing.M) {
	ocitest.Deviations = knownPeerDeviations
	ocitest.Main(m)
}
