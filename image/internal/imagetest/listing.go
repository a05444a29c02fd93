package imagetest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/tare-oci/tare/internal/sys/fsat"
)

// Listing describes the tree in dir, a line for each file: kind, mode, owner, mtime, extended attributes, content or target, link
// groups, and the inode if it is wanted. The first line is the directory itself.
func Listing(t testing.TB, dir string, inode bool) []string {
	t.Helper()
	var lines []string
	first := map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		info, err := e.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		line := fmt.Sprintf("%s %v %d:%d %s", name, info.Mode(), st.Uid, st.Gid, info.ModTime().UTC().Format(time.RFC3339Nano))
		parent, err := os.Open(filepath.Dir(path))
		if err != nil {
			return err
		}
		defer parent.Close()
		fd, err := fsat.Fd(parent)
		if err != nil {
			return err
		}
		x, err := fsat.XattrsAt(fd, filepath.Base(path))
		runtime.KeepAlive(parent)
		if err != nil {
			return err
		}
		if len(x) > 0 {
			line += fmt.Sprintf(" %q", x)
		}
		switch {
		case info.Mode().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %.40q", len(content), content)
		case info.Mode()&fs.ModeSymlink != 0:
			target, _ := os.Readlink(path)
			line += " -> " + target
		case info.Mode()&fs.ModeDevice != 0:
			line += fmt.Sprintf(" rdev %x", st.Rdev)
		}
		if st.Nlink > 1 && !info.IsDir() {
			if first[st.Ino] == "" {
				first[st.Ino] = name
			}
			line += " linked to " + first[st.Ino]
		}
		if inode {
			line += fmt.Sprintf(" inode %d", st.Ino)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return lines
}
