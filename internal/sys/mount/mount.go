// Package mount gives a thread a mount table of its own and mounts overlays in it, where the host never sees them.
package mount

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxData is what mount(2) takes of options: a page with its final zero, whatever the page size (4096 is the smallest).
const maxData = 4095

// Private moves the calling thread into a new mount namespace whose mounts receive what is mounted on the host later but
// send nothing back, and locks the goroutine to the thread for good: the thread ends with the goroutine, or the process.
// Processes that this goroutine starts from now on are in that namespace. Needs CAP_SYS_ADMIN.
func Private() error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make / a slave mount: %w", err)
	}
	return nil
}

// Overlay describes an overlayfs mount.
type Overlay struct {
	Lower    []string // read-only directories, the uppermost first; at least one
	Upper    string   // takes what is written
	Work     string   // empty, on Upper's file system; the kernel's own
	Volatile bool     // nothing is ever synced to disk: for data that nobody wants after a crash
	// UserXattr keeps overlayfs's marks in attributes user.overlay.* instead of trusted.overlay.*, which take root's rights.
	UserXattr bool
}

// Mount mounts the overlay on the directory target, in the calling thread's mount namespace. Directories are given to the
// kernel as descriptors below /proc/self/fd, so no character in a path can be taken for an option, long paths do not
// fill the page that options have to fit in, and the mount's options show no path of the host inside the container.
// Copying up keeps to what every kernel since 5.14 reads: no redirects, no metadata-only copies, no index.
func (o Overlay) Mount(target string) error {
	if len(o.Lower) == 0 {
		return errors.New("mount overlay: no lower directory")
	}
	var opened []*os.File
	defer func() {
		for _, f := range opened {
			f.Close()
		}
	}()
	option := func(dir string) (string, error) {
		f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", err
		}
		opened = append(opened, f)
		return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())), nil
	}
	dirs := make([]string, 0, len(o.Lower)+2)
	for _, d := range append([]string{o.Upper, o.Work}, o.Lower...) {
		name, err := option(d)
		if err != nil {
			return fmt.Errorf("mount overlay: %w", err)
		}
		dirs = append(dirs, name)
	}
	data := "upperdir=" + dirs[0] + ",workdir=" + dirs[1] + ",lowerdir=" + strings.Join(dirs[2:], ":") +
		",redirect_dir=nofollow,metacopy=off,index=off"
	if o.Volatile {
		data += ",volatile"
	}
	if o.UserXattr {
		data += ",userxattr"
	}
	if len(data) > maxData {
		return fmt.Errorf("mount overlay on %s: %d layers are more than one mount takes", target, len(o.Lower))
	}
	err := unix.Mount("overlay", target, "overlay", 0, data)
	if errors.Is(err, unix.EINVAL) {
		if fs := unfit(o.Upper); fs != "" {
			return fmt.Errorf("mount overlay on %s: %s cannot hold the files that a container writes: %w", target, fs, err)
		}
	}
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("mount overlay on %s: the kernel has no overlayfs (modprobe overlay): %w", target, err)
	}
	if err != nil {
		return fmt.Errorf("mount overlay on %s: %w", target, err)
	}
	return nil
}

// unfit names the file system below dir if it is one that overlayfs refuses as an upper directory.
func unfit(dir string) string {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return ""
	}
	switch int64(st.Type) {
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "an overlay below " + dir
	case unix.NFS_SUPER_MAGIC:
		return "NFS below " + dir
	case unix.FUSE_SUPER_MAGIC:
		return "FUSE below " + dir
	case unix.MSDOS_SUPER_MAGIC:
		return "FAT below " + dir
	}
	return ""
}

// Bind mounts the directory source on the directory target as well, in the calling thread's mount namespace.
func Bind(source, target string) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s on %s: %w", source, target, err)
	}
	return nil
}

// Detach takes the mount at target out of the calling thread's mount table, now, also if it is busy.
func Detach(target string) error {
	if err := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	return nil
}

// SyncFS writes everything on the file system of dir to disk.
func SyncFS(dir *os.File) error {
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("sync file system of %s: %w", dir.Name(), err)
	}
	return nil
}
