package runtime

import (
	"os"
	"path/filepath"

	"github.com/tare-oci/tare/test/internal/ocitest"
	"golang.org/x/sys/unix"
)

// mountTree mounts a tmpfs on dir and another on dir/sub, for the time of the case.
func mountTree(h *H, dir string) {
	for _, d := range []string{dir, filepath.Join(dir, "sub")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			h.Fatalf("%v", err)
		}
		if err := unix.Mount("t", d, "tmpfs", 0, ""); err != nil {
			h.Fatalf("mount %s: %v", d, err)
		}
	}
	h.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
}

func match(text, want string) bool { return ocitest.Match(text, want) }

// Short names of what the suites share.
var (
	mnt           = ocitest.Mnt
	inBundle      = ocitest.InBundle
	capEdit       = ocitest.CapEdit
	idMaps        = ocitest.IDMaps
	rootfsOf      = ocitest.RootfsOf
	nsID          = ocitest.NSID
	seccomp       = ocitest.Seccomp
	deny          = ocitest.Rule
	probeCall     = ocitest.ProbeCall
	rootless      = ocitest.Rootless
	asUser        = ocitest.AsUser
	userCmd       = ocitest.UserCmd
	subordinate   = ocitest.Subordinate
	consoleSocket = ocitest.ConsoleSocket
	pty           = ocitest.PTY
	long          = ocitest.Long
)

func withoutMounts(b *Bundle, dests ...string) { b.WithoutMounts(dests...) }
func swap(h *H, a, b string) (stop func())     { return h.Swap(a, b) }

const (
	userns = ocitest.UserNS
	user   = ocitest.User
)
