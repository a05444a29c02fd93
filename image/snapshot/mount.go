package snapshot

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tare-oci/tare/internal/sys/mount"
)

// Mount mounts the root file system on the directory target, writable, where the calling thread sees it: in its own mount
// namespace, if it has one (mount.Private). What is written goes to dir/upper; dir is the caller's, on any file system that
// takes one, and Mount makes what it needs in it. With volatile nothing that is written is ever synced to disk: for what
// nobody wants after a crash. The layers must be held as long as the mount is there. mount.Detach takes it away.
//
// With the driver Copy dir/upper gets a copy of everything, which ctx can end, and is mounted itself.
func (r *Rootfs) Mount(ctx context.Context, target, dir string, volatile bool) error {
	upper, work := filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	if err := os.Mkdir(upper, 0o700); err != nil {
		return err
	}
	if r.store.driver == Copy {
		if err := r.copyTo(ctx, upper); err != nil {
			return err
		}
		if err := r.modelRoot(upper); err != nil {
			return fmt.Errorf("give the root directory its attributes: %w", err)
		}
		return mount.Bind(upper, target)
	}
	if err := os.Mkdir(work, 0o700); err != nil {
		return err
	}
	if err := r.modelRoot(upper); err != nil {
		return fmt.Errorf("give the root directory its attributes: %w", err)
	}
	lower := r.Lower
	if len(lower) == 0 { // an overlay needs something to lie over
		empty := filepath.Join(dir, "empty")
		if err := os.Mkdir(empty, 0o755); err != nil {
			return err
		}
		lower = []string{empty}
	}
	o := mount.Overlay{Lower: lower, Upper: upper, Work: work, Volatile: volatile, UserXattr: r.store.rootless}
	return o.Mount(target)
}

// modelRoot gives the writable directory the owner, mode and times of the image's root directory, since an overlay shows those
// of its upper one.
func (r *Rootfs) modelRoot(upper string) error {
	if r.RootFrom == "" {
		return os.Chmod(upper, 0o755)
	}
	st, err := os.Stat(r.RootFrom)
	if err != nil {
		return err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && !r.store.rootless {
		if err := os.Chown(upper, int(sys.Uid), int(sys.Gid)); err != nil {
			return err
		}
	}
	if err := os.Chmod(upper, st.Mode()); err != nil {
		return err
	}
	return os.Chtimes(upper, st.ModTime(), st.ModTime())
}
