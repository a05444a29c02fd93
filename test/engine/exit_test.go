package engine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestExitStatus(t *testing.T) {
	s := newStore(t)
	for _, c := range []struct {
		code int
		args []string
	}{
		{0, []string{"true"}},
		{1, []string{"false"}},
		{42, []string{"sh", "-c", "exit 42"}},
		{255, []string{"sh", "-c", "exit 255"}},
		{125, []string{"sh", "-c", "exit 125"}},
		{127, []string{"nope"}},
		{127, []string{"/no/such/file"}},
		{126, []string{"/etc/noexec"}},
		{126, []string{"/etc"}},
	} {
		r := s.run(nil, c.args...)
		if r.code != c.code {
			t.Errorf("%v: %+v, want status %d", c.args, r, c.code)
		}
		if said := strings.Count(r.err, "\n"); c.code >= 126 && c.code <= 127 && said != 1 {
			t.Errorf("%v: not one sentence: %q", c.args, r.err)
		}
	}
	s.empty()
}

// What is wrong with the command line or the machine is said in one sentence that names it, with status 125, and leaves
// nothing.
func TestUsageErrors(t *testing.T) {
	s := newStore(t)
	image := "docker-archive:" + baseImage
	for line, want := range map[string]string{
		"":                                      "IMAGE is missing",
		"--nope " + image:                       "unknown option --nope",
		"--memory lots " + image:                `option --memory: "lots" is no size`,
		"--cpus 0 " + image:                     `option --cpus: "0" is no number of processors`,
		"--pids-limit x " + image:               `option --pids-limit: "x"`,
		"--memory-swap 5m " + image:             "needs one of memory",
		"--memory 9m --memory-swap 5m " + image: "are less than memory",
		"-v data:/data " + image:                "named volumes are not supported",
		"-v /data:data " + image:                "no absolute path in the container",
		"-v /data:/ " + image:                   "cannot be a volume",
		"-v /not/there:/data " + image:          "/not/there: no such file or directory",
		"-v /tmp:/data:shared " + image:         "option shared",
		"-v /tmp:/data:odd " + image:            `unknown option "odd"`,
		"--network bridge " + image:             "network bridge: not supported yet",
		"--network mine " + image:               `network "mine": unknown`,
		"--name a/b " + image:                   `name "a/b"`,
		"--name ../x " + image:                  `name "../x"`,
		"-w tmp " + image:                       `"tmp" is no absolute path`,
		"-u nobody-here " + image:               "nobody-here",
		"--env-file /not/there " + image:        "/not/there: no such file",
		"-e =x " + image:                        `"=x" has no name`,
		"-t " + image:                           "standard input is no terminal",
		"--runtime /not/there " + image:         "/not/there",
		"docker-archive:/not/there":             "/not/there: no such file or directory",
		"oci:/not/there":                        "/not/there",
		"ubuntu":                                "ubuntu",
	} {
		r := s.do("run", strings.Fields(line)...).result()
		if r.code != 125 || !strings.HasPrefix(r.err, "tare: ") || !strings.Contains(r.err, want) || strings.Count(r.err, "\n") != 1 {
			t.Errorf("tare run %s: %+v, want status 125 and %q", line, r, want)
		}
	}
	s.empty()
}

func TestSignals(t *testing.T) {
	s := newStore(t)
	script := "trap 'echo int' INT; trap 'echo usr1' USR1; trap 'echo term; exit 9' TERM; echo up; while :; do sleep 0.05; done"
	c, out := s.up([]string{"--rm"}, "sh", "-c", script)
	expect := func(want string) {
		t.Helper()
		await(t, want, func() bool { b, _ := os.ReadFile(out); return string(b) == want })
	}
	expect("up\n")
	c.cmd.Process.Signal(syscall.SIGINT)
	expect("up\nint\n")
	c.cmd.Process.Signal(syscall.SIGUSR1)
	expect("up\nint\nusr1\n")
	c.cmd.Process.Signal(syscall.SIGTERM)
	if r := c.wait(); r.code != 9 {
		t.Errorf("%+v", r)
	}
	expect("up\nint\nusr1\nterm\n")
	s.empty()
}

func TestKilledBySignal(t *testing.T) {
	s := newStore(t)
	r := s.run(nil, "sh", "-c", "sleep 100 & kill -SEGV $!; wait $!; exit $?")
	if r.code != 139 {
		t.Errorf("status of a killed child: %+v", r)
	}
	for _, runtimeToo := range []bool{false, true} {
		c, _ := s.up([]string{"--rm", "--name", "k"}, "sh", "-c", "echo up; sleep 1000")
		c.cmd.Process.Signal(syscall.SIGKILL)
		if runtimeToo { // what is left is the container alone: the next command ends it
			for _, p := range processesWith("--root\x00" + s.root + "/containers/") {
				n, _ := strconv.Atoi(strings.Split(p, ":")[0])
				syscall.Kill(n, syscall.SIGKILL)
			}
		}
		if r := c.wait(); r.code != -1 {
			t.Errorf("tare after kill -9: %+v", r)
		}
		if runtimeToo {
			await(t, "the next command cleans up", func() bool { return strings.Count(s.do("ps", "-a").result().out, "\n") == 1 })
		} else { // it runs on, and can be removed
			if r := s.do("ps").result(); !strings.Contains(r.out, "running") {
				t.Errorf("ps after kill -9 of tare run --rm: %s %s", r.out, r.err)
			}
			if r := s.do("rm", "-f", "k").result(); r.code != 0 {
				t.Errorf("%+v", r)
			}
		}
		s.empty()
	}
}

// Interrupted while an image is unpacked, tare leaves nothing half done.
func TestInterruptedUnpack(t *testing.T) {
	s := newStore(t)
	img := busyboxImage()
	entries := img.layers[0]
	for i := range 3000 {
		entries = append(entries, file("many/"+strings.Repeat("x", i%50)+time.Duration(i).String(), "content"))
	}
	img.layers[0] = entries
	path := filepath.Join(t.TempDir(), "i.tar")
	if err := img.dockerArchive(path); err != nil {
		t.Fatal(err)
	}
	c := s.do("run", "--rm", "docker-archive:"+path, "true").start()
	await(t, "unpacking begins", func() bool {
		part, _ := filepath.Glob(filepath.Join(s.root, "layers/sha256/*.part/fs/many/*"))
		return len(part) > 0
	})
	c.cmd.Process.Signal(syscall.SIGTERM)
	if r := c.wait(); r.code != 143 || r.err != "tare: stopped by signal: terminated\n" {
		t.Errorf("%+v", r)
	}
	s.empty()
	if layers, _ := filepath.Glob(filepath.Join(s.root, "layers/sha256/*")); len(layers) != 0 {
		t.Errorf("left: %v", layers)
	}
}

// A runtime that complains after the process ran must not make tare throw the container's files away.
func TestLateComplaint(t *testing.T) {
	s := newStore(t)
	s.runtime = filepath.Join(t.TempDir(), "runtime")
	script := `#!/bin/sh
while [ $# -gt 0 ]; do
	case $1 in --log) log=$2 ;; --pid-file) pid=$2 ;; esac
	shift
done
[ -z "$PIDFILE" ] || echo -n 1 >$pid
echo '{"level":"error","msg":"something went wrong","time":"2026-01-01T00:00:00Z"}' >$log
echo something went wrong >&2
exit 4
`
	if err := os.WriteFile(s.runtime, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	r := s.do("run", "--name", "early", "docker-archive:"+baseImage, "true").result()
	if r.code != 125 || r.err != "something went wrong\n" {
		t.Errorf("before the process ran: %+v", r)
	}
	s.empty()
	t.Setenv("PIDFILE", "1")
	r = s.do("run", "--name", "late", "docker-archive:"+baseImage, "true").result()
	if r.code != 4 || r.err != "something went wrong\n" {
		t.Errorf("after it ran: %+v", r)
	}
	if r := s.do("ps", "-a").result(); !strings.Contains(r.out, "exited (4)") {
		t.Errorf("the container is gone: %s", r.out)
	}
}

// Users other than root are told so in one sentence.
func TestNotRoot(t *testing.T) {
	home := t.TempDir()
	if err := os.Chmod(home, 0o777); err != nil {
		t.Fatal(err)
	}
	for dir := home; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(home, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(home, "tare")
	data, err := os.ReadFile(tare)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bin, data, 0o755); err != nil {
		t.Fatal(err)
	}
	c := &command{t: t, cmd: exec.Command(bin, "run", "oci:/x")}
	c.cmd.Dir, c.cmd.Env = "/", []string{"HOME=" + home}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if r := c.result(); r.code != 125 || r.err != "tare: run containers as another user than root: not supported yet; use sudo\n" {
		t.Errorf("%+v", r)
	}
}
