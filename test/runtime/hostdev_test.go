package runtime

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// workingDev is a directory that stands for the host's /dev: a few nodes, a terminal file system, and nothing to lose.
func workingDev(h *H, console bool) string {
	dir := h.TempDir()
	if err := unix.Mount("dev", dir, "tmpfs", 0, "mode=755"); err != nil {
		h.Fatalf("%v", err)
	}
	h.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	for name, minor := range map[string]uint32{"null": 3, "zero": 5, "full": 7} {
		if err := unix.Mknod(dir+"/"+name, unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			h.Fatalf("%v", err)
		}
	}
	for name, numbers := range map[string][2]uint32{"tty": {5, 0}, "ptmx": {5, 2}} {
		if err := unix.Mknod(dir+"/"+name, unix.S_IFCHR|0o666, int(unix.Mkdev(numbers[0], numbers[1]))); err != nil {
			h.Fatalf("%v", err)
		}
		if err := os.Chmod(dir+"/"+name, 0o666); err != nil {
			h.Fatalf("%v", err)
		}
	}
	if console {
		h.File(dir+"/console", "the host's", 0o600)
	}
	if err := os.Mkdir(dir+"/pts", 0o755); err != nil {
		h.Fatalf("%v", err)
	}
	if err := unix.Mount("devpts", dir+"/pts", "devpts", 0, "newinstance,ptmxmode=0,mode=620,gid=5"); err != nil {
		h.Fatalf("%v", err)
	}
	return dir
}

func listDir(h *H, dir string) string {
	es, err := os.ReadDir(dir)
	if err != nil {
		h.Fatalf("%v", err)
	}
	var out []string
	for _, e := range es {
		info, err := e.Info()
		if err != nil {
			h.Fatalf("%v", err)
		}
		out = append(out, info.Mode().String()+" "+e.Name())
	}
	return strings.Join(out, "\n")
}

func TestHostDev(t *testing.T) {
	for _, console := range []bool{true, false} {
		name, want := "without a console", "none"
		if console {
			name, want = "with a console", "console"
		}
		row(t, "D3 P2 a terminal where dev is bound, "+name, func(h *H) {
			dir := workingDev(h, console)
			before := listDir(h, dir)
			path, term := consoleSocket(h)
			b := h.Bundle().Edit(terminal, `mounts=[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/dev","type":"bind","source":"`+dir+`","options":["rbind","rprivate"]}]`)
			b.Sh("tty; test -c /dev/console && echo console || echo none; readlink /dev/ptmx; readlink /dev/fd; sleep 60")
			h.Up(b, "--console-socket", path)
			newScreen(term()).await(h, "/dev/pts/0\n"+want+"\n")
			if now := listDir(h, dir); now != before {
				h.Errorf("the host's directory had\n%s\nand has\n%s", before, now)
			}
			if data, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(data), dir+"/console") {
				h.Errorf("the host's console is covered")
			}
		})
	}
	row(t, "RP2 a terminal where dev is bound and the root is shared", func(h *H) {
		dir := workingDev(h, true)
		path, term := consoleSocket(h)
		b := h.Bundle().Edit(terminal, `linux.rootfsPropagation="shared"`, `mounts=[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/dev","type":"bind","source":"`+dir+`","options":["rbind"]}]`)
		b.Sh("tty; sleep 60")
		h.Up(b, "--console-socket", path)
		newScreen(term()).await(h, "/dev/pts/0\n")
		if data, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(data), dir+"/console") {
			h.Errorf("the host's console is covered")
		}
	})
	row(t, "D1 P2 a mount of the configuration on the console", func(h *H) {
		path, term := consoleSocket(h)
		b := h.Bundle().Edit(terminal, mnt("/dev/console", "none", "f", "bind"))
		withFile("f", "mine")(h, b)
		b.Sh("tty; cat /dev/console; sleep 60")
		h.Up(b, "--console-socket", path)
		newScreen(term()).await(h, "/dev/pts/0\nmine")
	})
	row(t, "M12 mqueue belongs to the root of the user namespace", func(h *H) {
		b := h.Bundle().Edit(userns, idMaps(100000, 65536)).Sh("stat -c %u:%g /dev/mqueue /dev/shm /dev/pts; readlink /proc/self/ns/ipc")
		rootfsOf(100000)(h, b)
		r := h.Run(b)
		h.Want(r, "~^0:0\n0:0\n0:0\nipc:", 0)
		if strings.Contains(r.Stdout, nsID(h, "self", "ipc")) {
			h.Errorf("the IPC namespace is the host's")
		}
	})
}
