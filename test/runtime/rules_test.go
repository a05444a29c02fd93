package runtime

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// ruleCases are requirements that no other table has.
var ruleCases = []Case{
	{Row: "G6 after a warning", Edit: []string{capEdit("CAP_KILL CAP_BANANA", "CAP_KILL", "CAP_KILL", "", "")}, Sh: "echo went on",
		Warn: "level=warning", Out: "went on"},
	{Row: "MA3 the image's null device is a file", Edit: []string{mnt("/dev/null", "none", "src/f", "bind"), `linux.maskedPaths=["/proc/keys"]`},
		Setup: withFile("src/f", "of the image"), Sh: "cat /dev/null; stat -c ' %F %t:%T' /proc/keys; wc -c </proc/keys",
		Out: "of the image character special file 1:3\n0"},
	{Row: "MA3 the image's null device is a link", Edit: []string{`mounts=[{"destination":"/proc","type":"proc","source":"proc"}]`, `linux.maskedPaths=["/etc/f"]`},
		Setup: func(h *H, b *Bundle) {
			withFile("rootfs/etc/f", "secret")(h, b)
			withFile("rootfs/etc/other", "other")(h, b)
			if err := os.Symlink("/etc/other", filepath.Join(b.Rootfs, "dev/null")); err != nil {
				h.Fatalf("%v", err)
			}
		}, Sh: "cat /etc/f", Err: "create device /dev/null: something else is there"},
}

func TestRules(t *testing.T) {
	runCases(t, ruleCases)
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err != nil {
		runCases(t, []Case{{Row: "M14 mountLabel without SELinux", Edit: []string{`linux.mountLabel="system_u:object_r:container_file_t:s0"`},
			Err: "selinux"}})
	}
	row(t, "P3 one message with the terminal and its name", func(h *H) {
		b := h.Bundle().Edit(terminal).Sh("stty size; tty; sleep 60").Edit(`process.consoleSize={"height":25,"width":80}`)
		path, terminal := consoleSocket(h)
		h.Create(b, "--console-socket", path)
		master := terminal() // which wants one message that is not empty, and one descriptor
		if _, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN); err != nil {
			h.Errorf("the descriptor is not the master of a terminal: %v", err)
		}
		if size, err := unix.IoctlGetWinsize(int(master.Fd()), unix.TIOCGWINSZ); err != nil || size.Row != 25 || size.Col != 80 {
			h.Errorf("the terminal has the size %v, %v", size, err)
		}
		h.MustRT("start", b.ID)
		if left, err := filepath.Glob(filepath.Join("/proc", fmt.Sprint(h.State(b.ID).Pid), "fd/[3-9]")); err != nil || len(left) > 0 {
			h.Errorf("the process has %v, %v", left, err)
		}
	})
	row(t, "N5 pid namespace of another container", func(h *H) {
		other := h.Bundle().Args("sleep", "1000")
		h.Up(other)
		path := fmt.Sprintf("/proc/%d/ns/pid", h.State(other.ID).Pid)
		b := h.Bundle().Edit(`linux.namespaces=[{"type":"pid","path":"` + path + `"},{"type":"network"},{"type":"ipc"},{"type":"uts"},{"type":"mount"}]`).
			Sh(`[ $$ != 1 ] && cat /proc/1/cmdline | tr '\0' ' '; readlink /proc/self/ns/pid; [ /proc/self/exe -ef /proc/$$/exe ] && echo own`)
		want, err := os.Readlink(path)
		if err != nil {
			h.Fatalf("%v", err)
		}
		h.Want(h.Run(b), "sleep 1000 "+want+"\nown", 0)
		if got := h.State(other.ID).Status; got != "running" {
			h.Errorf("the other container is %s", got)
		}
	})
	row(t, "HK8 the state that every hook gets", func(h *H) {
		b := h.Bundle().Args("true").Edit(`annotations={"k":"v"}`)
		l := addHooks(h, b)
		h.Run(b)
		for _, kind := range hookKinds {
			var s struct {
				OCIVersion, ID, Status, Bundle string
				Annotations                    map[string]string
			}
			data, err := os.ReadFile(filepath.Join(l.dir, kind+".json"))
			if err == nil {
				err = json.Unmarshal(data, &s)
			}
			if err != nil || s.OCIVersion == "" || s.ID != b.ID || s.Status == "" || s.Bundle != b.Dir || s.Annotations["k"] != "v" {
				h.Errorf("%s: %v: %s", kind, err, data)
			}
		}
	})
	row(t, "F1 the oldest and the newest version are accepted", func(h *H) {
		var f struct{ OCIVersionMin, OCIVersionMax string }
		if err := json.Unmarshal([]byte(h.MustRT("features").Stdout), &f); err != nil {
			h.Fatalf("%v", err)
		}
		major, _, _ := strings.Cut(f.OCIVersionMax, ".")
		for _, version := range []string{f.OCIVersionMin, f.OCIVersionMax} {
			h.Want(h.Run(h.Bundle().Edit(`ociVersion="`+version+`"`).Sh("echo ran")), "ran", 0)
		}
		next := "2.0.0"
		if r := h.Run(h.Bundle().Edit(`ociVersion="` + next + `"`)); major == "1" && (r.Code == 0 || !strings.Contains(r.Stderr, next)) {
			h.Errorf("version %s: status %d, %q", next, r.Code, r.Stderr)
		}
	})
}
