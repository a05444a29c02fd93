package runtime

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

// TestLowMemory gives containers less memory than they need: whatever fails says so with the limit, and does not hang.
// runc 1.1.5 needs more than 1 MiB, and says "unable to set memory limit".
func TestLowMemory(t *testing.T) {
	if !ocitest.Tare() {
		t.Skip("the words are tare's")
	}
	for _, kib := range []int{4, 64, 96, 128, 192, 256, 384, 512, 1024, 4096} {
		row(t, fmt.Sprintf("R2 memory limit of %d KiB", kib), func(h *H) {
			edit := fmt.Sprintf("linux.resources.memory={\"limit\":%d}", kib<<10)
			failed := func(what string, r Result) bool {
				if r.Code == 0 {
					return false
				}
				if !strings.Contains(r.Stderr, "memory limit of its cgroup, ") && !strings.Contains(r.Stderr, "set memory.limit: ") {
					h.Errorf("%s ends with %d and does not name the limit: %q", what, r.Code, r.Stderr)
				}
				return true
			}
			begin := time.Now()
			b := h.Bundle().Args("sleep", "1000").Edit(edit)
			h.Write(b)
			if !failed("create", h.RT("create", "--bundle", b.Dir, b.ID)) && !failed("start", h.RT("start", b.ID)) &&
				h.State(b.ID).Status == "running" {
				if r := h.RT("exec", b.ID, "true"); !match(r.Stderr, "~no such process|stopped container") { // the container was killed meanwhile
					failed("exec", r)
				}
			}
			h.MustRT("delete", "--force", b.ID)
			b = h.Bundle().Args("true").Edit(edit)
			if failed("run", h.Run(b)) && kib >= 1024 {
				h.Errorf("run fails with %d KiB", kib)
			}
			if took := time.Since(begin); took > 15*time.Second {
				h.Errorf("took %v", took)
			}
		})
	}
}
