package snapshot

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/tare-oci/tare/image/internal/imagetest"
	"github.com/tare-oci/tare/image/layer"
)

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

// mounted lists the root file system that the driver makes of layers.
func mounted(t *testing.T, d Driver, layers [][]byte) (lines []string) {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "layers"), Options{Driver: d})
	if err != nil {
		t.Fatal(err)
	}
	if s.Driver() != d {
		t.Errorf("driver is %s", s.Driver())
	}
	var all []Layer
	for _, l := range layers {
		all = append(all, layerOfTar(l, nil))
	}
	r := image(t, s, all...)
	privately(t, func() {
		dir := t.TempDir()
		target := filepath.Join(dir, "rootfs")
		if err := os.Mkdir(target, 0o700); err != nil {
			t.Error(err)
			return
		}
		if err := r.Mount(context.Background(), target, dir, true); err != nil {
			t.Error(err)
			return
		}
		lines = imagetest.Listing(t, target, false)
		if err := os.WriteFile(filepath.Join(target, "written"), nil, 0o600); err != nil {
			t.Error(err)
		}
		if err := syscall.Unmount(target, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(filepath.Join(dir, "upper", "written")); err != nil {
			t.Error(err)
		}
	})
	onlyWhole(t, s)
	return lines
}

// inPlace lists what the layers are, applied one after the other to one directory.
func inPlace(t *testing.T, layers [][]byte) []string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, l := range layers {
		if _, err := layer.Unpack(context.Background(), root, strings.NewReader(string(l)), layer.Options{Whiteouts: layer.InPlace}); err != nil {
			t.Fatal(err)
		}
	}
	return imagetest.Listing(t, dir, false)
}

// plain leaves out the root directory's time, and who is linked to whom: a file that is copied up loses its lower names.
func plain(lines []string) []string {
	lines = slices.Clone(lines)
	for i, l := range lines {
		lines[i], _, _ = strings.Cut(l, " linked to ")
	}
	if len(lines) > 0 {
		lines[0] = strings.Join(strings.Fields(lines[0])[:3], " ")
	}
	return lines
}

// TestDrivers compares what both drivers make of the odd images, and of all whiteouts, with layers applied in place.
func TestDrivers(t *testing.T) {
	all := imagetest.Odd(t)
	for _, c := range imagetest.Whiteouts {
		all = append(all, imagetest.Stack{Name: c.Name, Layers: [][]byte{
			imagetest.Pack(t, imagetest.WhiteoutBase...), imagetest.Pack(t, c.Entries...)}})
	}
	for _, c := range all {
		want := plain(inPlace(t, c.Layers))
		for _, d := range []Driver{Overlay, Copy} {
			t.Run(c.Name+"/"+string(d), func(t *testing.T) {
				got := plain(mounted(t, d, c.Layers))
				for _, line := range got {
					if !slices.Contains(want, line) {
						t.Errorf("only here   %s", line)
					}
				}
				for _, line := range want {
					if !slices.Contains(got, line) {
						t.Errorf("only there  %s", line)
					}
				}
			})
		}
	}
}

// TestAuto chooses overlayfs where it works.
func TestAuto(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "layers")
	for range 2 { // the second time from what is remembered
		s, err := Open(dir, Options{})
		if err != nil || s.Driver() != Overlay {
			t.Fatalf("%v, %v", s, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".probe*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := os.WriteFile(filepath.Join(dir, "driver"), []byte("copy other-boot\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(dir, Options{}); err != nil || s.Driver() != Overlay {
		t.Errorf("what another boot's driver was is believed: %v", err)
	}
	if _, err := Open(dir, Options{Driver: "zfs"}); err == nil {
		t.Error("unknown driver")
	}
}

// TestAutoOnOverlay copies on a file system that takes no whiteouts: here an overlay, as in a container. It runs in a process of
// its own, all of whose threads see the mount.
func TestAutoOnOverlay(t *testing.T) {
	base := os.Getenv("SNAPSHOT_BASE")
	if base == "" {
		base, err := os.MkdirTemp("", "auto") // no characters that mount options cannot have
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(base)
		cmd := exec.Command(os.Args[0], "-test.run=^TestAutoOnOverlay$", "-test.v")
		cmd.Env = append(os.Environ(), "SNAPSHOT_BASE="+base)
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestAutoOnOverlay") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	for _, d := range []string{"l", "u", "w", "m"} {
		if err := os.Mkdir(filepath.Join(base, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := "lowerdir=" + base + "/l,upperdir=" + base + "/u,workdir=" + base + "/w"
	if err := syscall.Mount("overlay", base+"/m", "overlay", 0, options); err != nil {
		t.Fatalf("mount overlay: %v", err)
	}
	s, err := Open(base+"/m/layers", Options{})
	if err != nil || s.Driver() != Copy {
		t.Fatalf("on overlayfs: %v, %v", s, err)
	}
	image(t, s, layerOf(t, nil, file("a", "x")), layerOf(t, nil, file(".wh.a", "")))
}

// TestSwaps is CVE-2025-47290: layers that swap a directory for a link, unpacked side by side and above each other, reach nothing
// outside of their own directories.
func TestSwaps(t *testing.T) {
	for _, d := range []Driver{Overlay, Copy} {
		outside := t.TempDir()
		if err := os.WriteFile(filepath.Join(outside, "file"), []byte("canary"), 0o640); err != nil {
			t.Fatal(err)
		}
		before := imagetest.Listing(t, outside, true)
		var layers []Layer
		for i := range 12 {
			entries := []string{"d s", "f s/file x", "l t " + outside, "f t/file x", "f t/.wh.file", "h h s/file"}
			if i%2 == 1 {
				entries = []string{"l s " + outside, "f s/file x", "f s/new x", "f s/.wh..wh..opq", "d t", "f t/file x", "f .wh.h"}
			}
			layers = append(layers, layerOfTar(imagetest.Pack(t, append(entries, "f n "+strings.Repeat("x", i))...), nil))
		}
		s, err := Open(filepath.Join(t.TempDir(), "layers"), Options{Driver: d})
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for n := range 4 {
			all.Go(func() {
				mine := slices.Clone(layers)
				slices.Reverse(mine[:n*3])
				r, err := s.Image(context.Background(), mine)
				if err != nil {
					t.Error(err)
					return
				}
				defer r.Close()
				if d == Copy {
					if err := r.copyTo(context.Background(), t.TempDir()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if after := imagetest.Listing(t, outside, true); !slices.Equal(after, before) {
			t.Errorf("%s: changed outside:\n%s\n%s", d, strings.Join(before, "\n"), strings.Join(after, "\n"))
		}
	}
}
