// Package engine is the black-box suite of tare run, ps and rm: everything goes through the built binaries, on images that
// the tests make. TARE_TEST_RUNTIME chooses another OCI runtime than tare-runtime.
package engine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var (
	tare        string // the binary under test
	runtimePath string // what --runtime gets
	baseImage   string // docker-archive with busybox
	suiteDir    string
)

func TestMain(m *testing.M) {
	os.Exit(suite(m))
}

func suite(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Println("the engine's suite needs root")
		return 1
	}
	var err error
	if suiteDir, err = os.MkdirTemp("", "tare-engine-"); err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(suiteDir)
	if err := build(); err != nil {
		fmt.Println(err)
		return 1
	}
	baseImage = filepath.Join(suiteDir, "base.tar")
	if err := busyboxImage().dockerArchive(baseImage); err != nil {
		fmt.Println("make image:", err)
		return 1
	}
	return m.Run()
}

// build builds the binaries of the tree that this test is in, as users build them.
func build() error {
	cmd := exec.Command("make", "-s", "build")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make build: %w\n%s", err, out)
	}
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		return err
	}
	tare, runtimePath = filepath.Join(bin, "tare"), filepath.Join(bin, "tare-runtime")
	other := os.Getenv("TARE_TEST_RUNTIME")
	if other != "" {
		path, err := exec.LookPath(other)
		if err != nil {
			return err
		}
		runtimePath = path
	}
	return nil
}

// store is a root directory of tare's for one test, which checks at its end that nothing is left of it on the host.
type store struct {
	t       *testing.T
	root    string
	runtime string
}

func newStore(t *testing.T) *store {
	s := &store{t: t, root: filepath.Join(t.TempDir(), "root"), runtime: runtimePath}
	t.Cleanup(func() {
		out, _ := s.do("ps", "-a", "--json").cmd.CombinedOutput() // cleans up
		if !strings.HasPrefix(string(out), "[") {
			t.Errorf("ps at the end: %s", out)
		}
		s.nothingOnHost()
	})
	return s
}

// nothingOnHost checks that the host shows no mount or process of the store's containers.
func (s *store) nothingOnHost() {
	s.t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		s.t.Fatal(err)
	}
	if strings.Contains(string(mounts), s.root) {
		s.t.Errorf("the host's mount table has mounts below %s", s.root)
	}
	if left := processesWith(s.root); len(left) > 0 {
		s.t.Errorf("processes are left: %v", left)
	}
}

// cgroupsOf lists the cgroups of the container whose id begins with id.
func cgroupsOf(id string) []string {
	var left []string
	for _, pattern := range []string{"/sys/fs/cgroup/tare-", "/sys/fs/cgroup/*/tare-"} {
		found, _ := filepath.Glob(pattern + id + "*")
		left = append(left, found...)
	}
	return left
}

// processesWith lists processes whose command line has text in it.
func processesWith(text string) []string {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var found []string
	for _, d := range dirs {
		line, err := os.ReadFile(filepath.Join(d, "cmdline"))
		if err == nil && bytes.Contains(line, []byte(text)) && filepath.Base(d) != fmt.Sprint(os.Getpid()) {
			found = append(found, filepath.Base(d)+": "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

// empty checks that no container, name or lock is in the store, nor half a layer.
func (s *store) empty() {
	s.t.Helper()
	for _, pattern := range []string{"containers/*", "containers/.*", "names/*", "running/*", "layers/*/*.part", "layers/*/*.lock"} {
		left, err := filepath.Glob(filepath.Join(s.root, pattern))
		if err != nil {
			s.t.Fatal(err)
		}
		for _, l := range left {
			if base := filepath.Base(l); base != "." && base != ".." {
				s.t.Errorf("left behind: %s", l)
			}
		}
	}
}

type command struct {
	t              *testing.T
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
}

type result struct {
	out, err string
	code     int
}

// do prepares a call of tare with the store's root and runtime.
func (s *store) do(sub string, args ...string) *command {
	front := []string{sub, "--root", s.root}
	if sub == "run" {
		front = append(front, "--runtime", s.runtime)
	}
	c := &command{t: s.t, cmd: exec.Command(tare, append(front, args...)...)}
	c.cmd.WaitDelay = 2 * time.Second // what a killed tare leaves running may hold the pipes
	return c
}

func (c *command) stdin(text string) *command {
	c.cmd.Stdin = strings.NewReader(text)
	return c
}

func (c *command) start() *command {
	c.t.Helper()
	if c.cmd.Stdout == nil {
		c.cmd.Stdout, c.cmd.Stderr = &c.stdout, &c.stderr
	}
	if err := c.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	return c
}

func (c *command) wait() result {
	c.t.Helper()
	timer := time.AfterFunc(60*time.Second, func() {
		c.t.Errorf("%v does not end", c.cmd.Args)
		c.cmd.Process.Kill()
	})
	defer timer.Stop()
	err := c.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		c.t.Fatal(err)
	}
	return result{c.stdout.String(), c.stderr.String(), c.cmd.ProcessState.ExitCode()}
}

func (c *command) result() result {
	c.t.Helper()
	return c.start().wait()
}

// run runs a container of the base image with --rm.
func (s *store) run(options []string, args ...string) result {
	s.t.Helper()
	return s.do("run", append(append([]string{"--rm"}, options...), append([]string{"docker-archive:" + baseImage}, args...)...)...).result()
}

// sh runs a shell script in a container and returns what it writes, without the last newline.
func (s *store) sh(options, script string) string {
	s.t.Helper()
	r := s.run(strings.Fields(options), "sh", "-c", script)
	if r.code != 0 {
		s.t.Errorf("tare run %s: sh -c %q: exit status %d: %s", options, script, r.code, r.err)
	}
	return strings.TrimSuffix(r.out, "\n")
}

// up starts a container whose command writes "up" once it runs, and waits for that. What it writes is in the file returned.
func (s *store) up(options []string, args ...string) (*command, string) {
	s.t.Helper()
	c := s.do("run", append(append(options, "docker-archive:"+baseImage), args...)...)
	out := filepath.Join(s.t.TempDir(), "out")
	f, err := os.Create(out)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	c.cmd.Stdout, c.cmd.Stderr = f, f // not a pipe: what outlives tare would keep it open
	c.start()
	await(s.t, "the container is up", func() bool { b, _ := os.ReadFile(out); return bytes.HasPrefix(b, []byte("up\n")) })
	return c, out
}

// await waits until ok holds.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
