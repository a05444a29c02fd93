package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// hookProcess is a script that writes what its process is to a file.
const hookProcess = `{ pwd; umask; id -u; id -g; id -G; grep -E '^(Cap(Prm|Eff|Bnd)|NoNewPrivs|Seccomp):' /proc/self/status | tr '\t' ' '; ulimit -n; ` +
	`env | grep -vE '^(PWD|SHLVL|OLDPWD|_)=' | sort | tr '\n' ' '; sed -n 's/.*pids://p' /proc/self/cgroup; ls /proc/self/fd | wc -l; } >`

// hookContainer is a container whose process differs in everything from what its runtime is; dir is its /log.
func hookContainer(h *H) (b *Bundle, dir string) {
	dir = h.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		h.Fatalf("%v", err)
	}
	b = h.Bundle().Args("sleep", "60").Edit(mnt("/log", "none", dir, "bind"), allowMkdir, `process.env+=["A=1"]`, `process.cwd="/tmp"`,
		`process.user={"uid":1000,"gid":1001,"additionalGids":[7]}`, capEdit("CAP_KILL", "CAP_KILL", "CAP_KILL", "", ""))
	return b, dir
}

func TestHookProcess(t *testing.T) {
	v1(t)
	const own = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	status, _ := os.ReadFile("/proc/self/status")
	_, all, _ := strings.Cut(string(status), "CapBnd:\t")
	all, _, _ = strings.Cut(all, "\n")
	row(t, "HK5 HK6 startContainer is the container's process", func(h *H) {
		b, dir := hookContainer(h)
		b.Edit(fmt.Sprintf(`hooks.startContainer=[{"path":"/bin/sh","args":["sh","-c",%q]},{"path":"/bin/sh","args":["sh","-c",%q],"env":["E=2","PATH=/bin"]}]`,
			hookProcess+"/log/1", hookProcess+"/log/2"))
		h.Write(b)
		if r := h.Do(Cmd{Args: []string{"create", "-b", b.Dir, b.ID}, Umask: "027"}); r.Code != 0 {
			h.Fatalf("create: %s", r.Stderr)
		}
		if r := h.Do(Cmd{Args: []string{"start", b.ID}, Umask: "027"}); r.Code != 0 {
			h.Fatalf("start: %s", r.Stderr)
		}
		want := "/tmp\n0022\n1000\n1001\n1001 7\nCapPrm: " + capNone + "\nCapEff: " + capNone + "\nCapBnd: " + capKill + "\nNoNewPrivs: 1\nSeccomp: 2\n1024\n%s/" + b.ID + "\n4\n"
		for i, env := range []string{"A=1 HOME=/ PATH=" + own + " TERM=xterm ", "E=2 PATH=/bin "} {
			if got := content(h, filepath.Join(dir, fmt.Sprint(i+1))); got != fmt.Sprintf(want, env) {
				h.Errorf("hook %d:\n%s\nwant:\n%s", i+1, got, fmt.Sprintf(want, env))
			}
		}
	})
	row(t, "HK5 createContainer runs in the root file system", func(h *H) {
		b, dir := hookContainer(h)
		b.Edit(fmt.Sprintf(`hooks.createContainer=[{"path":"/bin/sh","args":["sh","-c",%q],"env":["E=2","PATH=/bin:/usr/bin"]},{"path":"/bin/sh","args":["sh","-c","echo x >made-by-hook"]}]`, hookProcess+dir+"/1"))
		h.Write(b)
		if r := h.Do(Cmd{Args: []string{"create", "-b", b.Dir, b.ID}, Umask: "027"}); r.Code != 0 {
			h.Fatalf("create: %s", r.Stderr)
		}
		want := b.Rootfs + "\n0027\n0\n0\nCapPrm: " + all + "\nCapEff: " + all + "\nCapBnd: " + all + "\nNoNewPrivs: 0\nSeccomp: 0\nE=2 PATH=/bin:/usr/bin /" + b.ID + "\n4\n"
		got := strings.Split(content(h, filepath.Join(dir, "1")), "\n")
		if len(got) > 11 { // groups and limits are the test's
			got = slices.Delete(slices.Delete(got, 10, 11), 4, 5)
		}
		if strings.Join(got, "\n") != want {
			h.Errorf("hook:\n%s\nwant:\n%s", strings.Join(got, "\n"), want)
		}
		if st, err := os.Stat(filepath.Join(b.Rootfs, "made-by-hook")); err != nil || st.Mode().Perm() != 0o640 {
			h.Errorf("a file of the hook: %v, %v", st, err)
		}
		if _, err := os.Stat("/made-by-hook"); err == nil {
			os.Remove("/made-by-hook")
			h.Errorf("the hook wrote to the host's root")
		}
	})
	row(t, "HK hooks do not get the descriptors of the caller", func(h *H) {
		b := h.Bundle()
		dir := h.TempDir()
		b.Edit(mnt("/log", "none", dir, "bind"))
		for _, k := range hookKinds {
			out := dir
			if k == "startContainer" {
				out = "/log"
			}
			addHook(b, k, "ls /proc/self/fd | wc -l >"+out+"/"+k)
		}
		h.Write(b)
		f, err := os.Open("/etc/passwd")
		if err != nil {
			h.Fatalf("%v", err)
		}
		defer f.Close()
		h.Want(h.Do(Cmd{Args: []string{"run", "-b", b.Dir, b.ID}, Files: []*os.File{f, f, f}}), "", 0)
		for _, k := range hookKinds {
			if got := strings.TrimSpace(content(h, filepath.Join(dir, k))); got != "4" {
				h.Errorf("%s has %s descriptors", k, got)
			}
		}
	})
	for _, k := range hookKinds {
		row(t, "HK7 error of "+k, func(h *H) {
			b := h.Bundle().Args("sleep", "60")
			addHook(b, k, "true")
			addHook(b, k, "exit 3")
			h.Write(b)
			r := h.Do(Cmd{Args: []string{"run", "-d", "-b", b.Dir, b.ID}})
			text := r.Stderr
			if k == "poststop" {
				text = h.RT("delete", "-f", b.ID).Stderr
			}
			if want := "error running " + k + " hook #1:"; !strings.Contains(text, want) {
				h.Errorf("%q does not contain %q", text, want)
			}
		})
	}
}
