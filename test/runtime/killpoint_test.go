//go:build amd64 || arm64

package runtime

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tare-oci/tare/test/internal/killpoint"
	"github.com/tare-oci/tare/test/internal/ocitest"
)

// The unmodified runtime, or the process that it has cloned, is killed at every system call of an operation. Afterwards
// the state can be told, delete --force and a whole life of a container of the same name succeed, and nothing is left
// (requirement G5). TARE_LONG=1 does so at every call; without it at a part of the calls, which differs with the day.

// killCase is a configuration.
type killCase struct {
	name   string
	change func(h *H, b *Bundle) []string // flags of create, run and exec
	quick  int                            // how many calls the quick form tries of an operation
	ops    string                         // those that are tried, all when empty
}

var killCases = []killCase{
	{name: "default", quick: 20, change: func(*H, *Bundle) []string { return nil }},
	{name: "hooks", quick: 2, ops: "create start run delete", change: func(_ *H, b *Bundle) []string {
		hook := `[{"path":"/bin/true"}]`
		for _, kind := range []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"} {
			b.Edit("hooks." + kind + "=" + hook)
		}
		return nil
	}},
	{name: "user namespace", quick: 2, change: func(h *H, b *Bundle) []string {
		rootfsOf(100000)(h, b)
		b.Edit(userns, idMaps(100000, 65536))
		return nil
	}},
	{name: "joined namespaces", quick: 2, ops: "create run exec", change: func(h *H, b *Bundle) []string {
		other := h.Bundle().Args("sleep", "1000")
		h.Up(other)
		pid := h.State(other.ID).Pid
		b.Edit(fmt.Sprintf(`linux.namespaces=[{"type":"mount"},{"type":"uts"},{"type":"pid","path":"/proc/%[1]d/ns/pid"},`+
			`{"type":"ipc","path":"/proc/%[1]d/ns/ipc"},{"type":"network","path":"/proc/%[1]d/ns/net"}]`, pid))
		return nil
	}},
	{name: "terminal", quick: 2, ops: "create run exec", change: func(h *H, b *Bundle) []string {
		b.Edit("process.terminal=true")
		return []string{"--console-socket", drain(h)}
	}},
	{name: "notify", quick: 2, ops: "create run exec", change: func(h *H, b *Bundle) []string {
		b.Edit(seccomp("SCMP_ACT_ALLOW", deny("mkdir", "SCMP_ACT_NOTIFY", "")), fmt.Sprintf("linux.seccomp.listenerPath=%q", drain(h)))
		return nil
	}},
	{name: "network device", quick: 2, ops: "create run", change: func(_ *H, b *Bundle) []string {
		b.Edit(`linux.netDevices={"kp0":{"name":"eth0"}}`)
		return nil
	}},
}

// drain listens on a socket and forgets what it is sent.
func drain(h *H) string {
	path := filepath.Join(h.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		h.Fatalf("%v", err)
	}
	h.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			c.Read(make([]byte, 4096))
			c.Close()
		}
	}()
	return path
}

// killer kills one operation on one container at its calls.
type killer struct {
	*H
	b      *Bundle
	op     string
	flags  []string
	device bool
}

func TestKillPoints(t *testing.T) {
	if !ocitest.Tare() {
		t.Skip("the peers leave cgroups and processes behind")
	}
	for _, c := range killCases {
		for _, op := range []string{"create", "start", "run", "exec", "delete"} {
			if c.ops != "" && !strings.Contains(c.ops, op) {
				continue
			}
			for victim, name := range []string{killpoint.Program: "runtime", killpoint.Clone: "its clone"} {
				if name == "its clone" && (op == "start" || op == "delete") && c.name != "hooks" {
					continue // they make no process
				}
				row(t, fmt.Sprintf("G5 kill %s of %s: %s", name, op, c.name), func(h *H) {
					k := &killer{H: h, b: h.Bundle().Args("sleep", "1000"), op: op}
					if k.device = c.name == "network device"; k.device {
						h.Cleanup(func() { exec.Command("ip", "link", "del", "kp0").Run() })
					}
					k.flags = c.change(h, k.b)
					h.Write(k.b)
					k.all(killpoint.Victim(victim), c.quick)
				})
			}
		}
	}
}

// all tries the calls: every one, or quick of them.
func (k *killer) all(victim killpoint.Victim, quick int) {
	before := ocitest.TakeSnapshot()
	calls := k.try(victim, 0, before)
	first, stride := 1, 1
	if !long() {
		stride = max(1, calls/quick)
		first += int(time.Now().Unix()/86400) % stride
	}
	killed := 0
	for n := first; n <= calls+8 && k.Problems() == 0; n += stride {
		if k.try(victim, n, before) == 0 {
			killed++
		}
	}
	k.T.Logf("killed at %d of %d calls", killed, calls)
	if killed == 0 && k.Problems() == 0 {
		k.Errorf("nothing was killed")
	}
}

// try kills at call n and returns how many calls there were if it was not reached.
func (k *killer) try(victim killpoint.Victim, n int, before ocitest.Snapshot) int {
	k.makeDevice()
	id := k.b.ID
	if k.op != "create" && k.op != "run" {
		k.create()
	}
	args := []string{"--root", k.Root, k.op}
	switch k.op {
	case "create", "run":
		args = append(append(args, k.flags...), "--bundle", k.b.Dir, id)
	case "exec":
		k.MustRT("start", id)
		if args = append(args, "-d"); len(k.flags) > 0 {
			args = append(append(args, "--tty"), k.flags...)
		}
		args = append(args, id, "true")
	case "delete":
		k.MustRT("start", id)
		args = append(args, "--force", id)
	default:
		args = append(args, id)
	}
	if k.op == "run" {
		args = append(args[:3], append([]string{"-d"}, args[3:]...)...)
	}
	r, err := killpoint.At(exec.Command(ocitest.RuntimePath(), args...), victim, n, 20*time.Second)
	what := fmt.Sprintf("%s killed at %s", k.op, r.Call)
	if err != nil {
		k.Errorf("%s: %v", what, err)
	}
	k.look(what)
	k.end(what, before)
	if r.Killed {
		return 0
	}
	return r.Calls
}

// makeDevice makes the device that went with the network namespace of a container.
func (k *killer) makeDevice() {
	if !k.device || exec.Command("ip", "link", "show", "kp0").Run() == nil {
		return
	}
	k.Await("a new network device", func() bool { // the old one's end goes in the background
		return exec.Command("ip", "link", "add", "kp0", "type", "veth", "peer", "name", "kp1").Run() == nil
	})
}

// create calls the runtime without the harness.
func (k *killer) create() {
	k.MustRT(append(append([]string{"create", "--bundle", k.b.Dir}, k.flags...), k.b.ID)...)
}

// look checks that the state is the truth: what is created can be started, what runs has executed its program.
func (k *killer) look(what string) {
	r := k.RT("state", k.b.ID)
	if r.Code != 0 {
		if !strings.Contains(r.Stderr, "does not exist") {
			k.Errorf("%s: state: %s", what, r.Stderr)
		}
		return
	}
	s := k.State(k.b.ID)
	if s.Status == "created" {
		if r := k.RT("start", k.b.ID); r.Code != 0 {
			if k.State(k.b.ID).Status == "created" { // a clone that was killed may have died meanwhile
				k.Errorf("%s: a start of the created container: %s", what, r.Stderr)
			}
			return
		}
		if s = k.State(k.b.ID); s.Status != "running" && s.Status != "stopped" {
			k.Errorf("%s: started, and the state is %s", what, s.Status)
		}
	}
	if s.Status != "running" {
		return
	}
	k.Await("the program of a running container after "+what, func() bool {
		ocitest.Reap() // a clone whose runtime was killed ends, and is the suite's
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", s.Pid))
		return err != nil || string(comm) == "sleep\n"
	})
}

// end removes the container, gives another of its name a life, and compares.
func (k *killer) end(what string, before ocitest.Snapshot) {
	stop := k.ReapOrphans() // the process of an exec is the suite's when its runtime has ended
	r := k.RT("delete", "--force", k.b.ID)
	stop()
	if r.Code != 0 {
		k.Fatalf("%s: delete: %s", what, r.Stderr)
	}
	k.makeDevice()
	k.create()
	k.MustRT("start", k.b.ID)
	k.MustRT("delete", "--force", k.b.ID)
	if k.device {
		exec.Command("ip", "link", "del", "kp0").Run()
	}
	if r = k.RT("leaks", k.b.ID); r.Code != 0 || r.Stdout != "" {
		k.Errorf("%s: leaks: %s%s", what, r.Stdout, r.Stderr)
	}
	var diff string
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		ocitest.Reap()
		if diff = before.Diff(ocitest.TakeSnapshot()); diff == "" {
			return
		}
	}
	k.Errorf("left behind after %s:\n%s", what, diff)
}
