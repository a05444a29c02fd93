package fsat

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func fdOf(t *testing.T, f *os.File) int {
	t.Helper()
	fd, err := Fd(f)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// TestRemoveAllDepth removes a tree that is deeper than any path and than the descriptors that the process may open.
func TestRemoveAllDepth(t *testing.T) {
	parent := open(t, t.TempDir())
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 256, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old)
	dir := fdOf(t, parent)
	for level := range 5000 {
		if err := Mkdir(dir, "d"); err != nil {
			t.Fatalf("level %d: %v", level, err)
		}
		next, err := OpenDir(dir, "d")
		if err != nil {
			t.Fatal(err)
		}
		if file, err := Create(next, "f"); err != nil {
			t.Fatal(err)
		} else {
			Close(file)
		}
		if level > 0 {
			Close(dir)
		}
		dir = next
	}
	Close(dir)
	if err := RemoveAll(fdOf(t, parent), "d"); err != nil {
		t.Fatal(err)
	}
	if names, _ := parent.Readdirnames(-1); len(names) != 0 {
		t.Fatalf("left behind: %v", names)
	}
}

func TestRemoveAllFollowsNothing(t *testing.T) {
	canary := t.TempDir()
	if err := os.WriteFile(filepath.Join(canary, "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	os.MkdirAll(filepath.Join(tree, "sub"), 0o755)
	os.Symlink(canary, filepath.Join(tree, "sub", "dir"))
	os.Symlink(filepath.Join(canary, "file"), filepath.Join(tree, "file"))
	os.Symlink(tree, filepath.Join(dir, "link"))
	parent := fdOf(t, open(t, dir))
	if err := RemoveAll(parent, "link"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(tree); err != nil {
		t.Fatalf("the link's target went with the link: %v", err)
	}
	if err := RemoveAll(parent, "tree"); err != nil {
		t.Fatal(err)
	}
	if err := RemoveAll(parent, "tree"); err != nil {
		t.Fatalf("a missing name: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(canary, "file")); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRegularInRoot(t *testing.T) {
	dir := t.TempDir()
	os.MkdirAll(filepath.Join(dir, "etc"), 0o755)
	os.WriteFile(filepath.Join(dir, "etc", "real"), []byte("inside"), 0o644)
	os.Symlink("/etc/real", filepath.Join(dir, "etc", "absolute"))
	os.Symlink("../../../../../etc/real", filepath.Join(dir, "etc", "dots"))
	os.Symlink("/proc/self/exe", filepath.Join(dir, "etc", "outside"))
	os.Symlink("loop", filepath.Join(dir, "etc", "loop"))
	syscall.Mkfifo(filepath.Join(dir, "etc", "fifo"), 0o644)
	syscall.Mknod(filepath.Join(dir, "etc", "zero"), syscall.S_IFCHR|0o666, 1<<8|5)
	root := open(t, dir)
	for name, want := range map[string]error{
		"etc/real": nil, "/etc/absolute": nil, "etc/dots": nil, "etc/outside": syscall.ENOENT, "etc/loop": syscall.ELOOP,
		"etc/fifo": syscall.ENXIO, "etc/zero": syscall.ENXIO, "etc": syscall.ENXIO, "etc/none": syscall.ENOENT,
	} {
		f, err := OpenRegularInRoot(root, name)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, not %v", name, err, want)
		}
		if err == nil {
			f.Close()
		}
	}
}

func TestAttributesOfAnyKind(t *testing.T) {
	path := t.TempDir()
	dir := fdOf(t, open(t, path))
	if err := errors.Join(Symlink("nowhere", dir, "link"), Mknod(dir, "fifo", syscall.S_IFIFO|0o600, 0, 0)); err != nil {
		t.Fatal(err)
	}
	when := time.Unix(1_000_000_000, 123_456_789)
	for _, name := range []string{"link", "fifo"} {
		if err := errors.Join(ChownAt(dir, name, 7, 8), UtimesAt(dir, name, when, when),
			SetxattrAt(dir, name, "trusted.tare", []byte("v"))); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		st, err := Lstat(dir, name)
		if err != nil || st.UID != 7 || st.GID != 8 || !st.Mtime.Equal(when) || !st.Atime.Equal(when) {
			t.Errorf("%s: %+v, %v", name, st, err)
		}
		if x, err := XattrsAt(dir, name); err != nil || x["trusted.tare"] != "v" {
			t.Errorf("%s: %v, %v", name, x, err)
		}
	}
	if err := ChmodAt(dir, "fifo", 0o4751); err != nil {
		t.Fatal(err)
	}
	if st, _ := Lstat(dir, "fifo"); st.Mode&0o7777 != 0o4751 {
		t.Errorf("mode %o", st.Mode)
	}
	if err := ChmodAt(dir, "link", 0o600); err == nil {
		t.Error("changed the mode of a symbolic link")
	}
}

// privately runs test in a mount namespace of its own, on a thread that ends with it.
func privately(t *testing.T, test func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		err := syscall.Unshare(syscall.CLONE_NEWNS)
		if err == nil {
			err = syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "")
		}
		if err != nil {
			t.Errorf("make a private mount namespace: %v", err)
			return
		}
		test()
	}()
	<-done
}

func TestRemoveAllStaysOnItsMount(t *testing.T) {
	dir := t.TempDir()
	mnt := filepath.Join(dir, "tree", "mnt")
	os.MkdirAll(mnt, 0o755)
	privately(t, func() {
		if err := syscall.Mount("none", mnt, "tmpfs", 0, ""); err != nil {
			t.Error(err)
			return
		}
		os.WriteFile(filepath.Join(mnt, "foreign"), nil, 0o644)
		err := RemoveAll(fdOf(t, open(t, dir)), "tree")
		if err == nil || !strings.HasPrefix(err.Error(), "tree/mnt: ") {
			t.Errorf("error %v", err)
		}
		if _, err := os.Lstat(filepath.Join(mnt, "foreign")); err != nil {
			t.Error("removed what another mount holds")
		}
	})
}
