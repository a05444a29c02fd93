package runtime

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

// TestCrash kills the runtime itself at random moments. Afterwards delete --force must succeed, and nothing may be left.
func TestCrash(t *testing.T) {
	if !ocitest.Tare() {
		t.Skip("the peers leave cgroups and processes behind")
	}
	n := 25
	if long() {
		n = 1000
	}
	for _, op := range [][]string{{"create"}, {"run", "-d"}} {
		row(t, "G5 kill -9 of "+op[0], func(h *H) {
			killed := 0
			for i := range n {
				b := h.Bundle().Args("sleep", "1000").Edit(fmt.Sprintf(`linux.cgroupsPath="/%s/a/b"`, h.NewID()))
				h.Write(b)
				after := 0.5 + rand.Float64()*16 // ms; the whole takes about ten
				args := []string{"--foreground", "-s", "KILL", fmt.Sprintf("%.5f", after/1000), ocitest.RuntimePath(), "--root", h.Root}
				args = append(append(args, op...), "--bundle", b.Dir, b.ID)
				if r := h.Do(Cmd{Path: "/usr/bin/timeout", NoRoot: true, Args: args}); r.Code == 137 || r.Code == 124 {
					killed++
				} else if r.Code != 0 {
					h.Fatalf("%s ended with %d: %s", op[0], r.Code, r.Stderr)
				}
				h.MustRT("delete", "--force", b.ID)
				h.NoLeak(fmt.Sprintf("%s %d, killed after %.3f ms", op[0], i, after))
				if t.Failed() {
					return
				}
			}
			if killed < n/5 {
				h.Errorf("only %d of %d calls were killed before their end", killed, n)
			}
		})
	}
}
