package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/tare-oci/tare/image/snapshot"
	"github.com/tare-oci/tare/image/store"
	"github.com/tare-oci/tare/internal/sys/mount"
)

// mountKind is what the store calls what mounts hold.
const mountKind = "mount"

// mountID names the mount on a directory.
func mountID(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return hex.EncodeToString(sum[:])
}

// unpacked returns the root file system of an image, which is pulled first if it is not there.
func (e *Engine) unpacked(ctx context.Context, text string, o *RunOptions) (*image, *snapshot.Rootfs, error) {
	o.Source = text
	img, err := e.image(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	rootfs, err := e.unpack(ctx, img)
	if o.Pulled != nil {
		o.Pulled()
	}
	return img, rootfs, err
}

// Mount shows the files of an image on the directory dir, read-only, to everybody on the host, until Unmount. Devices and
// set-user-ID bits in it mean nothing. The image's layers are kept as long.
func (e *Engine) Mount(ctx context.Context, text, dir string, o RunOptions) error {
	if os.Geteuid() != 0 {
		return errors.New("mount images as another user than root: not supported yet; use sudo")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	img, rootfs, err := e.unpacked(ctx, text, &o)
	if err != nil {
		return err
	}
	defer rootfs.Close()
	if len(rootfs.Lower) == 0 {
		return fmt.Errorf("mount %s: the image has no files", text)
	}
	st, err := e.imageStore()
	if err != nil {
		return err
	}
	if err := st.SaveLease(ctx, store.LeaseInfo{Kind: mountKind, ID: mountID(dir), Layers: img.DiffIDs, Volatile: true}); err != nil {
		return err
	}
	if err := mount.ReadOnly(rootfs.Lower, dir, false); err != nil {
		return errors.Join(err, st.DeleteLease(ctx, mountKind, mountID(dir)))
	}
	return nil
}

// Unmount ends a Mount on dir.
func (e *Engine) Unmount(ctx context.Context, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	st, err := e.imageStore()
	if err != nil {
		return err
	}
	leases, err := st.Leases(ctx)
	if err != nil {
		return err
	}
	for _, l := range leases {
		if l.Kind != mountKind || l.ID != mountID(dir) {
			continue
		}
		if on, err := mount.On(dir); err != nil {
			return err
		} else if on {
			if err := mount.Unmount(dir); err != nil {
				return err
			}
		}
		return st.DeleteLease(ctx, mountKind, l.ID)
	}
	return fmt.Errorf("unmount %s: no image is mounted there by tare", dir)
}

// MountRun runs a command that sees the files of an image in a directory, which is its working directory and in the variable
// TARE_MOUNT. What the command changes there is gone when it ends. Nobody else sees the mount. The calling goroutine stays
// locked to its thread.
func (e *Engine) MountRun(ctx context.Context, text string, args []string, o RunOptions) (Outcome, error) {
	failed := Outcome{Code: 125}
	if os.Geteuid() != 0 {
		return failed, errors.New("mount images as another user than root: not supported yet; use sudo")
	}
	_, rootfs, err := e.unpacked(ctx, text, &o)
	if err != nil {
		return failed, err
	}
	defer rootfs.Close()
	// A container without a record: it is not listed, and Sweep removes what is left if we are killed.
	c, err := e.create(record{AutoRemove: true})
	if err != nil {
		return failed, err
	}
	out, err := runAt(c.path("rootfs"), func() error { return c.mountRoot(ctx, rootfs) }, args)
	return out, errors.Join(err, c.discard())
}

// runAt runs a command in target, after mountIt has mounted something there.
func runAt(target string, mountIt func() error, args []string) (Outcome, error) {
	failed := Outcome{Code: 125}
	runtime.LockOSThread()
	if err := mountIt(); err != nil {
		return failed, err
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env = target, append(os.Environ(), "TARE_MOUNT="+target)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	if e := mount.Detach(target); e != nil {
		return failed, errors.Join(err, e)
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return Outcome{Code: 128 + int(ws.Signal())}, nil
		}
		return Outcome{Code: exit.ExitCode()}, nil
	case errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist):
		return Outcome{Code: 127}, err
	case err != nil:
		return failed, err
	}
	return Outcome{}, nil
}
