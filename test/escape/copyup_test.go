package escape

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCopyUp is about what a tmpfs with tmpcopyup is filled with, and at whose expense.
func TestCopyUp(t *testing.T) {
	const limit = 24 << 20
	small := fmt.Sprintf(`linux.resources.memory={"limit":%d}`, limit)
	bundle := func(h *H, options ...string) (*Bundle, string) {
		b := h.Bundle().Edit(mnt("/data", "tmpfs", "tmpfs", append([]string{"tmpcopyup"}, options...)...))
		dir := b.Rootfs + "/data"
		if err := os.MkdirAll(dir, 0o755); err != nil {
			h.Fatalf("%v", err)
		}
		return b, dir
	}
	for _, pod := range []bool{false, true} {
		row(t, "issue7 F7 what is copied counts for the container's memory limit"+map[bool]string{true: ", in a pid namespace of another"}[pod], func(h *H) {
			b, dir := bundle(h)
			h.File(dir+"/big", strings.Repeat("x", 4*limit), 0o644)
			if pod {
				first := h.Bundle().Args("sleep", "60")
				h.Up(first)
				b.Edit(joinPID(h, first), "-hostname").WithoutMounts("/sys", "/dev/mqueue")
			}
			r := h.Run(b.Edit(small).Sh("echo ran"))
			if strings.Contains(r.Stdout, "ran") || !strings.Contains(r.Stderr, "memory limit") {
				h.Errorf("%d MiB were copied with a limit of %d: status %d, %s %s", 4*limit>>20, limit>>20, r.Code, r.Stdout, r.Stderr)
			}
			if !pod {
				h.NoLeak("too much to copy")
			}
		})
	}
	row(t, "issue7 F7 holes of files are not filled", func(h *H) {
		b, dir := bundle(h)
		h.File(dir+"/sparse", "begin", 0o640)
		f, err := os.OpenFile(dir+"/sparse", os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteAt([]byte("end"), 1<<40)
			f.Close()
		}
		if err != nil {
			h.Fatalf("%v", err)
		}
		b.Edit(small).Sh("stat -c '%s %a' /data/sparse; head -c 5 /data/sparse; tail -c 3 /data/sparse; [ $(du -k /data/sparse | cut -f1) -lt 1000 ] && echo small")
		h.Want(h.Run(b), fmt.Sprintf("%d 640\nbeginendsmall", int64(1<<40+3)), 0)
	})
	row(t, "issue7 G2 a lease on a file does not delay create", func(h *H) {
		b, dir := bundle(h)
		h.File(dir+"/leased", "x", 0o644)
		f, err := os.OpenFile(dir+"/leased", os.O_RDWR, 0)
		if err != nil {
			h.Fatalf("%v", err)
		}
		defer f.Close()
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
			h.Fatalf("take a lease: %v", err)
		}
		h.Write(b.Args("true"))
		r := h.Do(Cmd{Args: []string{"run", "-b", b.Dir, b.ID}, Timeout: 8 * time.Second})
		if h.Problems() == 0 && (r.Code == 0 || !strings.Contains(r.Stderr, "leased: another process holds a lease on the file")) {
			h.Errorf("status %d: %s", r.Code, r.Stderr)
		}
		h.NoLeak("a leased file")
	})
	row(t, "issue7 G2 delete --force ends a create that copies", func(h *H) {
		b, dir := bundle(h)
		for i := range 5000 {
			h.File(fmt.Sprint(dir, "/f", i), "x", 0o644)
		}
		h.Write(b.Args("true"))
		_, wait := h.Start(Cmd{Args: []string{"create", "-b", b.Dir, b.ID}, Timeout: 30 * time.Second})
		stopCopier(h)
		h.Want(h.RT("delete", "--force", b.ID), "", 0)
		if r := wait(); r.Code == 0 {
			h.Errorf("create: status 0 for a container that was deleted")
		}
		h.NoLeak("a create that was ended")
	})
	row(t, "issue7 F9 what takes the place of a file is not opened", func(h *H) {
		b, dir := bundle(h, "size=4m")
		b.Args("true")
		h.Write(b)
		const files = 300
		nodes := filepath.Join(h.TempDir(), "nodes")
		if err := os.Mkdir(nodes, 0o755); err != nil {
			h.Fatalf("%v", err)
		}
		for i := range files {
			name := fmt.Sprint("/f", i)
			h.File(dir+name, "x", 0o644)
			if err := unix.Mkfifo(nodes+name, 0o666); err != nil {
				h.Fatalf("mkfifo: %v", err)
			}
		}
		end, ended := make(chan struct{}), make(chan struct{})
		go func() { // another container that has the directory: its devices are opened in the same way
			defer close(ended)
			for i := 0; ; i++ {
				select {
				case <-end:
					return
				default:
				}
				name := fmt.Sprint("/f", i%files)
				_ = unix.Renameat2(unix.AT_FDCWD, dir+name, unix.AT_FDCWD, nodes+name, unix.RENAME_EXCHANGE)
			}
		}()
		defer func() { close(end); <-ended }()
		for range 60 {
			// A run that is refused because of the exchange is fine; one that opens a pipe waits for a writer, which never
			// comes.
			h.Do(Cmd{Args: []string{"run", "-b", b.Dir, b.ID}, Timeout: 5 * time.Second})
			if h.Problems() > 0 {
				return
			}
		}
	})
	row(t, "issue7 F7 an error with a long path is told", func(h *H) {
		b, dir := bundle(h, "size=1m")
		deep, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		for range 400 { // 100 kB, more than a pipe holds
			if err != nil {
				break
			}
			name := strings.Repeat("d", 250)
			if err = unix.Mkdirat(deep, name, 0o755); err == nil {
				var next int
				next, err = unix.Openat(deep, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
				unix.Close(deep)
				deep = next
			}
		}
		if err != nil {
			h.Fatalf("%v", err)
		}
		h.File(fmt.Sprintf("/proc/self/fd/%d/big", deep), strings.Repeat("x", 2<<20), 0o644)
		unix.Close(deep)
		if r := h.Run(b.Args("true")); r.Code == 0 || !strings.Contains(r.Stderr, "no space left on device") {
			h.Errorf("status %d, %.300q", r.Code, r.Stderr)
		}
	})
}

// stopCopier waits for the process that copies and stops it, as a slow file system does.
func stopCopier(h *H) {
	h.Await("the process that copies", func() bool {
		names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, name := range names {
			data, _ := os.ReadFile(name)
			if !strings.HasPrefix(string(data), "tare-runtime\x00copy-up\x00") {
				continue
			}
			pid, _ := strconv.Atoi(strings.Split(name, "/")[2])
			return unix.Kill(pid, unix.SIGSTOP) == nil
		}
		return false
	})
}
