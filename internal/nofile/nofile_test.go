package nofile_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/tare-oci/tare/internal/nofile"
)

// TestStart runs this test's own binary under another soft limit, which the Go runtime raises before main.
func TestStart(t *testing.T) {
	if os.Getenv("NOFILE_CHILD") != "" {
		fmt.Print(nofile.Start[0])
		os.Exit(0)
	}
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		if nofile.Start != [2]uint64{} {
			t.Errorf("limit %v from nowhere", nofile.Start)
		}
		return
	}
	cmd := exec.Command("sh", "-c", `ulimit -S -n 77 && exec "$0" -test.run=TestStart`, os.Args[0])
	cmd.Env = append(os.Environ(), "NOFILE_CHILD=1")
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "77" {
		t.Errorf("soft limit %q, %v, want 77", out, err)
	}
}
