package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// hostile are the flags of a mount of a stranger's files that anybody can reach: no devices, no set-user-ID programs.
const hostile = unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID

// ReadOnly shows the directories in lower, the uppermost first and at least one, as one directory on target, in the calling
// thread's mount namespace. Nothing can be written there, and devices and set-user-ID bits in it mean nothing. With userXattr
// overlayfs's marks are in attributes user.overlay.*.
func ReadOnly(lower []string, target string, userXattr bool) error {
	if len(lower) == 0 {
		return errors.New("mount: there is no directory to show")
	}
	if len(lower) == 1 { // overlayfs wants two
		if err := unix.Mount(lower[0], target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount on %s: %w", target, err)
		}
		if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|hostile, ""); err != nil {
			return errors.Join(fmt.Errorf("mount read-only on %s: %w", target, err), Detach(target))
		}
		return nil
	}
	var names []string
	for _, dir := range lower {
		f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("mount overlay: %w", err)
		}
		defer f.Close()
		names = append(names, "/proc/self/fd/"+strconv.Itoa(int(f.Fd())))
	}
	data := "index=off,lowerdir=" + strings.Join(names, ":") // an index would refuse what another mount writes to
	if userXattr {
		data += ",userxattr"
	}
	if len(data) > maxData {
		return fmt.Errorf("mount overlay on %s: %d layers are more than one mount takes", target, len(lower))
	}
	if err := unix.Mount("tare", target, "overlay", hostile, data); err != nil {
		return fmt.Errorf("mount overlay on %s: %w", target, err)
	}
	return nil
}

// Unmount takes the mount at target out of the calling thread's mount table, unless somebody uses it.
func Unmount(target string) error {
	if err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	return nil
}

// On reports whether something is mounted on the directory path: whether it is on another file system, or another mount, than
// its parent.
func On(path string) (bool, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return false, err
	}
	var here, above unix.Statx_t
	for at, st := range map[string]*unix.Statx_t{path: &here, filepath.Dir(path): &above} {
		if err := unix.Statx(unix.AT_FDCWD, at, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, st); err != nil {
			return false, fmt.Errorf("look for a mount on %s: %w", path, err)
		}
	}
	return here.Mnt_id != above.Mnt_id, nil
}
