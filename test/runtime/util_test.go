package runtime

import (
	"os"
	"path/filepath"

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
