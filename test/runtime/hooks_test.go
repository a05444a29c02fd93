package runtime

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var hookKinds = []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}

// hookLog makes every kind of hook append what it sees to one file on the host; the directory of the file is mounted at /log
// inside, where startContainer runs.
type hookLog struct{ dir string }

func addHooks(h *H, b *Bundle) hookLog {
	l := hookLog{h.TempDir()}
	if err := os.Chmod(l.dir, 0o777); err != nil {
		h.Fatalf("%v", err)
	}
	b.Edit(mnt("/log", "none", l.dir, "bind"))
	for _, k := range hookKinds {
		dir := l.dir
		if k == "startContainer" {
			dir = "/log"
		}
		script := fmt.Sprintf(`cat >%[1]s/%[2]s.json; echo %[2]s:$V:$(pwd) >>%[1]s/order; readlink /proc/self/ns/uts >%[1]s/%[2]s.ns`, dir, k)
		addHook(b, k, script)
	}
	return l
}

// addHook appends a hook that runs a shell script with V=kind in its environment.
func addHook(b *Bundle, kind, script string) {
	j, _ := json.Marshal([]map[string]any{{"path": "/bin/sh", "args": []string{"sh", "-c", script}, "env": []string{"V=" + kind, "PATH=/usr/bin:/bin"}}})
	b.Edit("hooks." + kind + "+=" + string(j))
}

func (l hookLog) order() string {
	data, _ := os.ReadFile(filepath.Join(l.dir, "order"))
	var ks []string
	for _, line := range strings.Fields(string(data)) {
		k, _, _ := strings.Cut(line, ":")
		ks = append(ks, k)
	}
	return strings.Join(ks, " ")
}

func TestHooks(t *testing.T) {
	row(t, "HK order, state, namespaces", func(h *H) {
		b := h.Bundle().Args("sleep", "60").Edit(`annotations={"k":"v"}`)
		l := addHooks(h, b)
		h.Create(b)
		if got := l.order(); got != "prestart createRuntime createContainer" {
			h.Errorf("after create: %s", got)
		}
		pid := h.State(b.ID).Pid
		h.MustRT("start", b.ID)
		if got := l.order(); !strings.HasSuffix(got, "startContainer poststart") {
			h.Errorf("after start: %s", got)
		}
		uts := nsID(h, pid, "uts")
		h.MustRT("kill", b.ID, "KILL")
		h.AwaitStatus(b.ID, "stopped")
		h.MustRT("delete", b.ID)
		if got := l.order(); got != strings.Join(hookKinds, " ") {
			h.Errorf("order: %s", got)
		}
		l.check(h, b, pid, uts)
	})
	row(t, "HK2 timeout", func(h *H) {
		b := h.Bundle().Edit(`hooks.createRuntime=[{"path":"/bin/sleep","args":["sleep","30"],"timeout":1}]`)
		start := time.Now()
		r := h.Run(b)
		if d := time.Since(start); r.Code == 0 || d < 900*time.Millisecond || d > 8*time.Second {
			h.Errorf("status %d after %s", r.Code, d)
		}
		h.NoLeak("the timeout")
	})
	row(t, "HK4 environment is exactly that of the hook", func(h *H) {
		b := h.Bundle()
		d := h.TempDir()
		b.Edit(fmt.Sprintf(`hooks.createRuntime=[{"path":"/bin/sh","args":["x","-c","/usr/bin/env -0 >%s/env; echo $0 >%s/arg0"],"env":["ONLY=1"]}]`, d, d))
		h.Want(h.Run(b), "", 0)
		env, _ := os.ReadFile(d + "/env")
		for _, e := range strings.Split(strings.TrimSuffix(string(env), "\x00"), "\x00") {
			if name, _, _ := strings.Cut(e, "="); name != "ONLY" && name != "PWD" && name != "_" && name != "OLDPWD" && name != "SHLVL" {
				h.Errorf("the hook sees %s", e)
			}
		}
		if data, _ := os.ReadFile(d + "/arg0"); strings.TrimSpace(string(data)) != "x" {
			h.Errorf("argv[0] is %q", data)
		}
	})
	row(t, "HK5 runtime hooks run in the bundle", func(h *H) {
		b := h.Bundle().Args("true")
		l := addHooks(h, b)
		h.Want(h.Run(b), "", 0)
		data, _ := os.ReadFile(filepath.Join(l.dir, "order"))
		for _, line := range strings.Fields(string(data)) {
			f := strings.SplitN(line, ":", 3)
			if (f[0] == "prestart" || f[0] == "createRuntime" || f[0] == "poststart" || f[0] == "poststop") && f[2] != b.Dir {
				h.Errorf("%s runs in %s, want %s", f[0], f[2], b.Dir)
			}
			if f[1] != f[0] {
				h.Errorf("environment of %s: V=%s", f[0], f[1])
			}
		}
	})
	row(t, "HK7 the error tells what the hook said", func(h *H) {
		b := h.Bundle()
		addHook(b, "createRuntime", "echo the reason is blue >&2; exit 3")
		if r := h.Run(b); r.Code == 0 || !strings.Contains(r.Stderr, "the reason is blue") {
			h.Errorf("status %d: %s", r.Code, r.Stderr)
		}
		h.NoLeak("the error")
	})
	row(t, "HK9 run ends with poststop", func(h *H) {
		b := h.Bundle()
		l := addHooks(h, b)
		h.Want(h.Run(b), "", 0)
		if got := l.order(); got != strings.Join(hookKinds, " ") {
			h.Errorf("order: %s", got)
		}
	})
	row(t, "HK9 delete --force runs poststop", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		l := addHooks(h, b)
		h.Up(b)
		h.MustRT("delete", "-f", b.ID)
		if got := l.order(); !strings.HasSuffix(got, "poststop") {
			h.Errorf("order: %s", got)
		}
	})
	row(t, "HK10 createRuntime reaches the network namespace", func(h *H) {
		b := h.Bundle().Sh("ls /sys/class/net")
		addHook(b, "createRuntime", `pid=$(sed 's/.*"pid": *\([0-9]*\).*/\1/'); /usr/sbin/ip link add h0 type veth peer name c0 netns $pid`)
		h.Want(h.Run(b), "c0\nlo", 0)
	})
	row(t, "HK1 poststart sees the program", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		d := h.TempDir()
		addHook(b, "poststart", fmt.Sprintf(`pid=$(sed 's/.*"pid": *\([0-9]*\).*/\1/'); tr '\0' ' ' </proc/$pid/cmdline >%s/exe`, d))
		h.Up(b)
		if data, _ := os.ReadFile(d + "/exe"); strings.TrimSpace(string(data)) != "sleep 60" {
			h.Errorf("poststart sees %q", data)
		}
	})
	row(t, "HK11 the hooks are those of create", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		l := addHooks(h, b)
		h.Create(b)
		os.WriteFile(filepath.Join(b.Dir, "config.json"), []byte("{}"), 0o644)
		h.MustRT("delete", "-f", b.ID)
		if got := l.order(); !strings.HasSuffix(got, "poststop") {
			h.Errorf("order: %s", got)
		}
	})
}

// check looks at the state that every hook got and at the namespaces in which it ran.
func (l hookLog) check(h *H, b *Bundle, pid int, uts string) {
	status := map[string]string{"prestart": "creating", "createRuntime": "creating", "createContainer": "creating", "startContainer": "created", "poststart": "running", "poststop": "stopped"}
	pids := map[string]int{"prestart": pid, "createRuntime": pid, "createContainer": 1, "startContainer": 1, "poststart": pid, "poststop": 0}
	own, _ := os.Readlink("/proc/self/ns/uts")
	for _, k := range hookKinds {
		var s struct {
			OCIVersion  string
			ID          string
			Status      string
			Pid         int
			Bundle      string
			Annotations map[string]string
		}
		data, err := os.ReadFile(filepath.Join(l.dir, k+".json"))
		if err == nil {
			err = json.Unmarshal(data, &s)
		}
		if err != nil || s.OCIVersion == "" || s.ID != b.ID || s.Status != status[k] || s.Pid != pids[k] || s.Bundle != b.Dir || s.Annotations["k"] != "v" {
			h.Errorf("%s: %v: state is %s, want status %s, pid %d", k, err, data, status[k], pids[k])
		}
		ns, _ := os.ReadFile(filepath.Join(l.dir, k+".ns"))
		want := own
		if k == "createContainer" || k == "startContainer" {
			want = uts
		}
		if !strings.Contains(string(ns), want) {
			h.Errorf("%s ran in the namespaces %q, want %s", k, ns, want)
		}
	}
}

var hookErrors = []Case{
	{Row: "HK2 timeout 0", Edit: []string{`hooks.createRuntime=[{"path":"/bin/true","timeout":0}]`}, Err: "timeout"},
	{Row: "HK2 negative timeout of a hook that would never run", Edit: []string{`hooks.poststop=[{"path":"/bin/true","timeout":-1}]`}, Err: "timeout"},
	{Row: "HK3 relative path", Edit: []string{`hooks.poststop=[{"path":"true"}]`}, Err: "path"},
	{Row: "HK3 no path", Edit: []string{`hooks.startContainer=[{}]`}, Err: "path"},
	{Row: "HK missing program of createRuntime", Edit: []string{`hooks.createRuntime=[{"path":"/no/such"}]`}, Err: "no such file or directory"},
	{Row: "HK missing program of createContainer", Edit: []string{`hooks.createContainer=[{"path":"/no/such"}]`}, Err: "no such file or directory"},
	{Row: "HK wrong type", Edit: []string{`hooks.createRuntime={}`}, Err: "*"},
}

func TestHookErrors(t *testing.T) { runCases(t, hookErrors) }

func TestHookFailures(t *testing.T) {
	for _, k := range []string{"prestart", "createRuntime", "createContainer"} {
		row(t, "step 3-5 failing "+k, func(h *H) {
			b := h.Bundle()
			l := addHooks(h, b)
			addHook(b, k, "exit 3")
			h.Write(b)
			h.FailRT("", "create", "--bundle", b.Dir, b.ID)
			h.NoLeak("the error")
			if got := l.order(); !strings.HasSuffix(got, k+" poststop") {
				h.Errorf("order: %s", got)
			}
		})
	}
	for _, k := range []string{"startContainer", "poststart"} {
		row(t, "step 7-9 failing "+k, func(h *H) {
			b := h.Bundle().Sh("echo ran >/log/ran; sleep 60")
			l := addHooks(h, b)
			addHook(b, k, "exit 3")
			h.Create(b)
			h.FailRT("", "start", b.ID)
			h.NoLeak("the error")
			if got := l.order(); !strings.HasSuffix(got, k+" poststop") {
				h.Errorf("order: %s", got)
			}
			if _, err := os.Stat(l.dir + "/ran"); k == "startContainer" && err == nil {
				h.Errorf("the program ran")
			}
			h.FailRT("container does not exist", "state", b.ID)
		})
		row(t, "step 7-9 failing "+k+" of run", func(h *H) {
			b := h.Bundle().Args("sleep", "60")
			l := addHooks(h, b)
			addHook(b, k, "exit 3")
			if r := h.Run(b); r.Code == 0 {
				h.Errorf("status 0")
			}
			h.NoLeak("the error")
			if got := l.order(); !strings.HasSuffix(got, k+" poststop") {
				h.Errorf("order: %s", got)
			}
		})
	}
	row(t, "step 13 failing poststop", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		addHook(b, "poststop", "exit 3")
		l := addHooks(h, b)
		h.Up(b)
		h.MustRT("kill", b.ID, "KILL")
		h.AwaitStatus(b.ID, "stopped")
		h.MustRT("delete", b.ID)
		h.NoLeak("delete")
		if got := l.order(); !strings.HasSuffix(got, "poststop") {
			h.Errorf("the hooks after the failing one did not run: %s", got)
		}
	})
}
