package ocitest

import (
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// User is the one that has no rights.
const User = 1000

// Rootless makes a bundle as `spec --rootless` does, all of it the user's.
func Rootless(h *H, edits ...string) *Bundle {
	b := h.Bundle().Edit(`-linux.resources`, `-linux.cgroupsPath`, `linux.namespaces=[{"type":"pid"},{"type":"ipc"},{"type":"uts"},{"type":"mount"},{"type":"user"}]`,
		`linux.uidMappings=[{"containerID":0,"hostID":1000,"size":1}]`, `linux.gidMappings=[{"containerID":0,"hostID":1000,"size":1}]`,
		`mounts=[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","strictatime","mode=755","size=65536k"]},
			{"destination":"/dev/pts","type":"devpts","source":"devpts","options":["nosuid","noexec","newinstance","ptmxmode=0666","mode=0620"]},
			{"destination":"/dev/shm","type":"tmpfs","source":"shm","options":["nosuid","noexec","nodev","mode=1777","size=65536k"]},
			{"destination":"/dev/mqueue","type":"mqueue","source":"mqueue","options":["nosuid","noexec","nodev"]},
			{"destination":"/sys","type":"none","source":"/sys","options":["rbind","nosuid","noexec","nodev","ro"]}]`)
	b.Edit(edits...)
	return b
}

// AsUser gives the case's directories to the user and calls the runtime as that user.
func AsUser(h *H, b *Bundle, args ...string) Result {
	h.Write(b)
	if err := os.MkdirAll(h.Root, 0o700); err != nil {
		h.Fatalf("%v", err)
	}
	if out, err := exec.Command("chown", "-R", "-h", "1000:1000", b.Dir, h.Root).CombinedOutput(); err != nil {
		h.Fatalf("chown: %s", out)
	}
	return h.Do(UserCmd(h, b, args...))
}

// UserCmd is a call of the runtime by the user.
func UserCmd(_ *H, b *Bundle, args ...string) Cmd {
	return Cmd{Args: args, Dir: b.Dir, Cred: &syscall.Credential{Uid: User, Gid: User, NoSetGroups: false}, Env: []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "HOME=/nonexistent"}}
}

// Subordinate lets user 1000 map 300000 and the next 65536 ids: it mounts files over those of /etc, in the suite's own mount
// namespace, for the time of the case.
func Subordinate(h *H) {
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		h.Fatalf("%v", err)
	}
	etc := h.TempDir()
	for _, c := range [][]string{{"cp", "-a", "/etc/.", etc}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			h.Fatalf("%v: %s", c, out)
		}
	}
	h.File(etc+"/passwd", string(passwd)+"sub:x:1000:1000::/:/bin/sh\n", 0o644)
	h.File(etc+"/subuid", "sub:300000:65536\n", 0o644)
	h.File(etc+"/subgid", "sub:300000:65536\n", 0o644)
	if err := unix.Mount(etc, "/etc", "", unix.MS_BIND, ""); err != nil {
		h.Fatalf("%v", err)
	}
	h.Cleanup(func() { unix.Unmount("/etc", unix.MNT_DETACH) })
}
