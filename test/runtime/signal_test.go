package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

// showSignals prints what its process ignores and blocks; noSignals is that when nothing is.
var showSignals = []string{"grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"}

const noSignals = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000"

// deaf calls the runtime from a process that ignores and blocks every signal, as nohup and supervisors do with some.
func deaf(h *H, b *Bundle, args ...string) Result {
	return h.Do(Cmd{Path: filepath.Join(b.Rootfs, "bin/probe"), NoRoot: true, Args: append([]string{"deaf", ocitest.RuntimePath(), "--root", h.Root}, args...)})
}

func TestSignals(t *testing.T) {
	row(t, "signals of run", func(h *H) {
		b := h.Bundle().Args(showSignals...)
		h.Write(b)
		h.Want(deaf(h, b, "run", "-b", b.Dir, b.ID), noSignals, 0)
	})
	row(t, "signals of run in a user namespace with a joined one", func(h *H) {
		b := h.Bundle().Args(showSignals...).Edit(userns, idMaps(100000, 65536), fmt.Sprintf(`linux.namespaces+=[{"type":"cgroup","path":"/proc/%d/ns/cgroup"}]`, os.Getpid()))
		h.Write(b)
		h.Want(deaf(h, b, "run", "-b", b.Dir, b.ID), noSignals, 0)
	})
	row(t, "signals of create and start", func(h *H) {
		b := h.Bundle().Sh(strings.Join(showSignals[:2], " ") + " '" + showSignals[2] + "' " + showSignals[3] + "; sleep 60")
		h.Write(b)
		r := deaf(h, b, "create", "-b", b.Dir, b.ID)
		if r.Code != 0 {
			h.Fatalf("create: %s", r.Stderr)
		}
		if r := deaf(h, b, "start", b.ID); r.Code != 0 {
			h.Fatalf("start: %s", r.Stderr)
		}
		h.Await("the program", func() bool { return strings.Count(r.Again().Stdout, "\n") == 2 })
		h.Want(r.Again(), noSignals, 0)
	})
	row(t, "signals of exec", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		h.Want(deaf(h, b, append([]string{"exec", b.ID}, showSignals...)...), noSignals, 0)
	})
	row(t, "signals of hooks", func(h *H) {
		b := h.Bundle()
		dir := h.TempDir()
		b.Edit(mnt("/log", "none", dir, "bind"))
		for _, k := range hookKinds {
			out := dir
			if k == "startContainer" {
				out = "/log"
			}
			addHook(b, k, "grep -E '^Sig(Blk|Ign)' /proc/self/status >"+out+"/"+k+"; true") // true: a shell leaves its own signals to a last command
		}
		h.Write(b)
		h.Want(deaf(h, b, "run", "-b", b.Dir, b.ID), "", 0)
		for _, k := range hookKinds {
			if data, err := os.ReadFile(filepath.Join(dir, k)); strings.TrimSpace(string(data)) != noSignals {
				h.Errorf("%s: %v %q", k, err, data)
			}
		}
	})
	// The runtime itself forwards what its caller ignored.
	row(t, "signals are forwarded by a runtime that was nohupped", func(h *H) {
		b := h.Bundle().Sh("trap 'echo hup; exit 3' HUP; echo ready; while :; do sleep 0.1; done")
		h.Write(b)
		r, wait := h.Start(Cmd{Path: "/bin/sh", NoRoot: true, Args: []string{"-c", `trap "" HUP; exec "$@"`, "sh", ocitest.RuntimePath(), "--root", h.Root, "run", "-b", b.Dir, b.ID}})
		h.Await("the program", func() bool { return strings.Contains(r.Again().Stdout, "ready") })
		h.Signal(b.ID, syscall.SIGHUP)
		h.Want(wait(), "ready\nhup", 3)
	})
}
