// Package criu is the black-box suite of checkpoint and restore. It runs where criu(8) works on the kernel: in the virtual machines
// of test/vm, and on hosts whose `criu check` is content.
package criu

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

// H and Bundle are those of the other suites.
type (
	H      = ocitest.H
	Bundle = ocitest.Bundle
)

var row = ocitest.Row

func TestMain(m *testing.M) { ocitest.Main(m) }

// needCriu skips a test where criu does not work.
func needCriu(t *testing.T) {
	out, err := exec.Command("criu", "check").CombinedOutput()
	if err != nil {
		t.Skipf("criu does not work here: %v: %s", err, strings.TrimSpace(string(out)))
	}
}
