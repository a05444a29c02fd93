package ocitest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	runtimePath string // absolute path of the runtime under test
	peer        string // the first word of its --version: tare-runtime, runc, crun …
	peerVersion string
	idCount     int
)

// Deviation is what a peer is known to do wrongly in a case. The case is run all the same and has to fail: a deviation that
// is gone must be taken out of the table.
type Deviation struct {
	Does string // what it does instead
	Skip bool   // the case is not run: it would hang or harm the machine
}

// Deviations is set by a suite: peer name, or name and version with a space between ("runc 1.1.5"), then full test name.
var Deviations map[string]map[string]Deviation

// Peer returns the name that the runtime under test gives itself.
func Peer() string { return peer }

// PeerVersion returns the version that the runtime under test says it has.
func PeerVersion() string { return peerVersion }

// deviation looks a test up.
func deviation(test string) (Deviation, bool) {
	if d, ok := Deviations[peer][test]; ok {
		return d, true
	}
	d, ok := Deviations[peer+" "+peerVersion][test]
	return d, ok
}

// RuntimePath returns the absolute path of the runtime under test.
func RuntimePath() string { return runtimePath }

// Tare reports whether the runtime under test is tare's own.
func Tare() bool { return strings.HasPrefix(peer, "tare") }

// H is one case: its bundles, its containers and what it found wrong. It is not safe for concurrent use, except Do and Errorf.
type H struct {
	T        *testing.T
	Root     string     // value of --root for every command
	mu       sync.Mutex // guards problems
	problems []string
	before   Snapshot
	dir      string // the case's own directory
	dirs     int
	ids      []string
	cleanups []func()
}

type abort struct{}

// Row runs f as the subtest name, which starts with the number of a requirement. Every container is removed afterwards, and
// what is then left (mounts, cgroups, processes, network devices, state files) is a failure.
func Row(t *testing.T, name string, f func(h *H)) {
	t.Run(name, func(t *testing.T) {
		dev, isDev := deviation(t.Name())
		if isDev && dev.Skip {
			t.Skipf("%s deviates: %s", peer, dev.Does)
		}
		h := newH(t)
		func() {
			defer func() {
				if r := recover(); r != nil {
					if _, ok := r.(abort); !ok {
						h.finish()
						panic(r)
					}
				}
			}()
			f(h)
		}()
		skipped := t.Skipped()
		h.finish()
		switch {
		case skipped:
		case isDev && len(h.problems) == 0:
			t.Errorf("%s is said to deviate (%s) but passes: mend the table", peer, dev.Does)
		case isDev:
			t.Logf("%s deviates as known: %s\n%s", peer, dev.Does, strings.Join(h.problems, "\n"))
		case len(h.problems) > 0:
			t.Error(strings.Join(h.problems, "\n"))
		}
	})
}

func newH(t *testing.T) *H {
	dir, err := os.MkdirTemp(workDir, "c")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h := &H{T: t, dir: dir, Root: filepath.Join(dir, "state")}
	h.before = TakeSnapshot()
	return h
}

// Errorf records a problem.
func (h *H) Errorf(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.problems = append(h.problems, fmt.Sprintf(format, args...))
}

// Fatalf records a problem and ends the case.
func (h *H) Fatalf(format string, args ...any) { h.Errorf(format, args...); panic(abort{}) }

// Cleanup adds a function that is called, last first, when the case ends, before the leak oracle looks.
func (h *H) Cleanup(f func()) { h.cleanups = append(h.cleanups, f) }

// NewID returns an unused container id; it contains the suite's mark by which cgroups are found.
func (h *H) NewID() string {
	idCount++
	id := fmt.Sprintf("%s-%d", filepath.Base(workDir), idCount)
	h.ids = append(h.ids, id)
	return id
}

// TempDir returns a new directory, mode 0755, removed at the end of the case. Its path is short enough for sockets.
func (h *H) TempDir() string {
	h.dirs++
	d := filepath.Join(h.dir, fmt.Sprint(h.dirs))
	if err := os.Mkdir(d, 0o755); err != nil {
		h.Fatalf("%v", err)
	}
	return d
}

// File writes a file below the case's directories and returns its path.
func (h *H) File(path, content string, mode os.FileMode) string {
	if !filepath.IsAbs(path) {
		path = filepath.Join(h.TempDir(), path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.Fatalf("%v", err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		h.Fatalf("%v", err)
	}
	if err := os.Chmod(path, mode); err != nil {
		h.Fatalf("%v", err)
	}
	return path
}

// NoLeak compares the world with that at the start of the case, without removing anything first: requirement G5.
func (h *H) NoLeak(when string) {
	reap()
	d := h.before.Diff(TakeSnapshot())
	for end := time.Now().Add(3 * time.Second); onlyLinks(d) && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		d = h.before.Diff(TakeSnapshot()) // the kernel takes network namespaces apart later, in a worker
	}
	if d != "" {
		h.Errorf("left behind after %s:\n%s", when, d)
	}
	if left := stateFiles(h.Root); len(left) > 0 {
		h.Errorf("state left behind after %s: %s", when, strings.Join(left, " "))
	}
}

func onlyLinks(diff string) bool {
	for _, l := range strings.Split(diff, "\n") {
		if !strings.Contains(l, ": network device ") {
			return false
		}
	}
	return true
}

func (h *H) finish() {
	stop := h.ReapOrphans()
	for _, id := range h.ids {
		if _, err := os.Stat(filepath.Join(h.Root, id)); err == nil {
			if r := h.Do(Cmd{Args: []string{"delete", "-f", id}}); r.Code != 0 {
				h.Errorf("delete --force of %s: status %d: %s", id, r.Code, r.Stderr)
			}
		}
	}
	stop()
	for i := len(h.cleanups) - 1; i >= 0; i-- {
		h.cleanups[i]()
	}
	h.NoLeak("the case")
	killAll()
	for _, id := range h.ids {
		for _, d := range cgroupDirs(id) {
			os.Remove(d)
		}
	}
	detachBelow(h.dir)
	os.RemoveAll(h.dir)
}

// Problems is how many problems were recorded.
func (h *H) Problems() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.problems)
}
