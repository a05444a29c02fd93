package runtime

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

func TestSmall(t *testing.T) {
	row(t, "X cwd that does not exist", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		if r := h.FailRT("no such file or directory", "exec", "--cwd", "/none", b.ID, "pwd"); r.Code != 255 {
			h.Errorf("status %d, want 255", r.Code)
		}
		if _, err := os.Lstat(filepath.Join(b.Rootfs, "none")); err == nil {
			h.Errorf("the directory was made")
		}
		h.Want(h.Run(h.Bundle().Args("pwd").Edit(`process.cwd="/none"`)), "/none", 0)
	})
	row(t, "P8 empty HOME", func(h *H) {
		b := h.Bundle().Sh("echo $HOME").Edit(`process.env=["PATH=/bin","HOME="]`, `process.user={"uid":7,"gid":8}`)
		h.File(filepath.Join(b.Rootfs, "etc/passwd"), "seven:x:7:8::/seven:/bin/sh\n", 0o644)
		h.Want(h.Run(b), "/seven", 0)
		b = h.Bundle().Sh("echo $HOME").Edit(`process.env=["PATH=/bin","HOME=/x","HOME="]`)
		h.Want(h.Run(b), "/", 0)
	})
	row(t, "G names in any case", func(h *H) {
		h.Want(h.Run(h.Bundle().Sh("pwd; hostname").Edit("-process.cwd", `process.CWD="/tmp"`, "-hostname", `HostName="other"`)), "/tmp\nother", 0)
	})
	row(t, "C5 letters that are not an access", func(h *H) {
		v1(h.T)
		b := h.Bundle().Args("sleep", "60").Edit(`linux.resources.devices+=[{"allow":true,"type":"c","major":10,"minor":229,"access":"rwa"}]`)
		h.Up(b)
		if list := h.CgroupFile(h.State(b.ID).Pid, "devices", "devices.list"); !strings.Contains(list, "c 10:229 rw\n") {
			h.Errorf("devices.list: %q", list)
		}
	})
	row(t, "CLI list of a root that is not there", func(h *H) {
		root := filepath.Join(h.TempDir(), "none")
		r := h.Do(Cmd{NoRoot: true, Args: []string{"--root", root, "list"}})
		if r.Code != 1 || !strings.Contains(r.Stderr, "no such file or directory") {
			h.Errorf("status %d, %q", r.Code, r.Stderr)
		}
		if _, err := os.Stat(root); err == nil {
			h.Errorf("the root was made")
		}
	})
	row(t, "CLI unknown command", func(h *H) {
		for _, args := range [][]string{{"banana"}, {"banana", "-h"}, {"help", "banana"}} {
			if r := h.FailRT("No help topic for 'banana'", args...); r.Code != 3 {
				h.Errorf("%v: status %d, want 3", args, r.Code)
			}
		}
	})
	row(t, "CLI usage goes to standard output", func(h *H) {
		for args, reason := range map[string]string{"kill": `"kill" requires a minimum of 1 argument(s)`, "start --banana": "flag provided but not defined: -banana", "--banana": "flag provided but not defined: -banana"} {
			r := h.Do(Cmd{NoRoot: true, Args: strings.Fields(args)})
			if r.Code != 1 || !strings.HasPrefix(r.Stdout, "Incorrect Usage") || !strings.Contains(r.Stdout, "\nUSAGE:\n") || !strings.Contains(strings.ReplaceAll(r.Stderr, `\"`, `"`), reason) {
				h.Errorf("%s: status %d\n%s\n%s", args, r.Code, r.Stdout, r.Stderr)
			}
		}
	})
	row(t, "CLI debug tells steps and times", func(h *H) {
		b := h.Bundle()
		h.Write(b)
		r := h.Do(Cmd{Global: []string{"--debug"}, Args: []string{"create", "-b", b.Dir, b.ID}})
		for _, step := range []string{"make the cgroup", "clone the container's process", "save the state", "publish the container"} {
			if !regexp.MustCompile(`level=debug msg="` + step + `: [0-9.]+(µs|ms|s)"\n`).MatchString(r.Stderr) {
				h.Errorf("no time of %q in\n%s", step, r.Stderr)
			}
		}
		if r := h.RT("start", b.ID); strings.Contains(r.Stderr, "level=debug") {
			h.Errorf("without --debug: %s", r.Stderr)
		}
	})
	row(t, "CLI trace-phases tells microseconds", testTracePhases)
}

// TestSpecAsRunc compares the template with that of runc, line by line but for what names the runtime and its version.
// The ambient set of runc 1.1 cannot be granted without the inheritable one; newer runc has neither. The power counters
// are masked by us alone.
func TestSpecAsRunc(t *testing.T) {
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skipf("there is no runc to compare with: %v", err)
	}
	own := regexp.MustCompile(`(?s),\n\t\t\t"/sys/devices/virtual/powercap"|"ociVersion": "[^"]*"|"hostname": "[^"]*"|,\n\t\t\t"ambient": \[[^]]*\]`)
	for _, flags := range [][]string{nil, {"--rootless"}} {
		row(t, strings.Join(append([]string{"CLI spec as runc writes it"}, flags...), " "), func(h *H) {
			texts := map[string]string{}
			for _, path := range []string{runc, ocitest.RuntimePath()} {
				dir := h.TempDir()
				if r := h.Do(Cmd{Path: path, NoRoot: true, Dir: dir, Args: append([]string{"spec"}, flags...)}); r.Code != 0 {
					h.Fatalf("%s spec: %s", path, r.Stderr)
				}
				texts[path] = own.ReplaceAllString(content(h, filepath.Join(dir, "config.json")), "")
			}
			if texts[runc] != texts[ocitest.RuntimePath()] {
				h.Errorf("runc:\n%s\nwe:\n%s", texts[runc], texts[ocitest.RuntimePath()])
			}
		})
	}
}

// testTracePhases: the phases of a command add up to its whole time, which is at most what its caller measures, and
// without the flag nothing is written.
func testTracePhases(h *H) {
	b := h.Bundle().Args("sleep", "60")
	h.Write(b)
	phase := regexp.MustCompile(`level=info msg="phase of [a-z]+: ([^"]+): ([0-9]+) us"\n`)
	for _, c := range []struct {
		want []string // phases in their order
		args []string
	}{
		{[]string{"entry", "parse the command line", "read the bundle and compile the plan", "clone the container's process", "await the process",
			"publish the container", "return"}, []string{"create", "-b", b.Dir, b.ID}},
		{[]string{"entry", "open the container and read its configuration", "start the program", "return"}, []string{"start", b.ID}},
		{[]string{"entry", "open the container", "clone the process", "wait for the process", "return"}, []string{"exec", b.ID, "/bin/true"}},
		{[]string{"entry", "open the container", "remove the cgroup", "remove the state", "return"}, []string{"delete", "-f", b.ID}},
	} {
		log := filepath.Join(h.TempDir(), "log")
		begin := time.Now()
		r := h.Do(Cmd{Global: []string{"--trace-phases", "--log", log}, Args: c.args})
		took := time.Since(begin)
		data, err := os.ReadFile(log)
		if r.Code != 0 || err != nil || strings.Contains(r.Stderr, "phase") {
			h.Fatalf("%v: status %d, %v, %s", c.args, r.Code, err, r.Stderr)
		}
		sum, next := 0, 0
		for _, m := range phase.FindAllStringSubmatch(string(data), -1) {
			us, err := strconv.Atoi(m[2])
			if err != nil {
				h.Fatalf("%v", err)
			}
			sum++ // each is rounded down
			sum += us
			if next < len(c.want) && m[1] == c.want[next] {
				next++
			}
		}
		var total int
		if _, after, ok := strings.Cut(string(data), "phases of "+c.args[0]+": total: "); !ok {
			h.Errorf("%v: no total in\n%s", c.args, data)
		} else if _, err := fmt.Sscanf(after, "%d us", &total); err != nil {
			h.Fatalf("%v", err)
		}
		if next < len(c.want) || total > sum || total < 100 || total > int(took.Microseconds()) {
			h.Errorf("%v: missing phase %q, or total %d us, sum %d us, measured %v in\n%s", c.args, c.want[min(next, len(c.want)-1)], total, sum, took, data)
		}
	}
	quiet := h.Bundle()
	h.Write(quiet)
	if r := h.Do(Cmd{Args: []string{"run", "-b", quiet.Dir, quiet.ID}}); strings.Contains(r.Stderr, "phase") {
		h.Errorf("without --trace-phases: %s", r.Stderr)
	}
}
