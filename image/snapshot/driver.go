package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/tare-oci/tare/internal/atomicfile"
	"github.com/tare-oci/tare/internal/sys/fsat"
	"github.com/tare-oci/tare/internal/sys/mount"
)

// choose finds out which driver works in the store's directory, once in each boot.
func (s *Store) choose() (Driver, error) {
	file := s.path("driver")
	known, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	name, boot, _ := strings.Cut(strings.TrimSpace(string(known)), " ")
	if d := Driver(name); boot == s.boot && boot != "" && (d == Overlay || d == Copy) {
		return d, nil
	}
	d := Overlay
	var files *fs.PathError
	if err := s.probe(); errors.As(err, &files) { // a full disk, say, which tells nothing of overlayfs
		return "", err
	} else if err != nil {
		d = Copy
	}
	return d, atomicfile.Write(file, []byte(string(d)+" "+s.boot+"\n"), 0o600, atomicfile.NoSync)
}

// probe mounts an overlay in the store's directory, in a mount namespace that goes away with its thread, and says why that
// cannot be done. Without root's rights, which a mount takes, the kernel's version has to answer: overlayfs can be mounted in
// user namespaces since Linux 5.11, and tare needs 5.14.
func (s *Store) probe() error {
	if os.Geteuid() != 0 {
		known, err := os.ReadFile("/proc/filesystems")
		if err == nil && !strings.Contains(string(known), "\toverlay\n") {
			err = errors.New("the kernel has no overlayfs")
		}
		return err
	}
	dir, err := os.MkdirTemp(s.dir, ".probe-")
	if err != nil {
		return err
	}
	result := make(chan error)
	go func() { result <- s.probeIn(dir) }() // the thread, locked, ends with the goroutine
	err = <-result
	return errors.Join(err, removeTree(dir))
}

// probeIn makes in dir what an overlay of layers needs, a whiteout included, and mounts it.
func (s *Store) probeIn(dir string) error {
	o := mount.Overlay{Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"), Lower: []string{filepath.Join(dir, "lower")},
		UserXattr: s.rootless}
	target := filepath.Join(dir, "target")
	for _, d := range []string{o.Upper, o.Work, o.Lower[0], target} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return err
		}
	}
	if err := overlayMarks(o.Lower[0], s.rootless); err != nil {
		return fmt.Errorf("make a whiteout: %w", err)
	}
	if err := mount.Private(); err != nil {
		return err
	}
	if err := o.Mount(target); err != nil {
		return err
	}
	return mount.Detach(target)
}

// overlayMarks makes what hides things in a layer for overlayfs: not every file system takes them.
func overlayMarks(path string, userXattr bool) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	fd, err := fsat.Fd(dir)
	if err != nil {
		return err
	}
	if err := fsat.Mknod(fd, "whiteout", syscall.S_IFCHR, 0, 0); err != nil {
		return err
	}
	attr := "trusted.overlay.opaque"
	if userXattr {
		attr = "user.overlay.opaque"
	}
	return fsat.Fsetxattr(fd, attr, []byte("y"))
}
