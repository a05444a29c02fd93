// Package mutants shows that the tests of defences can fail. A mutant is a patch, NAME.patch, that takes one defence away; its header
// names the defence, the tests that must be red with it, and what they must say:
//
//	defence: what it is, and against which advisory
//	test: ./test/escape -run TestRaces/CVE-2021-30465
//	red: a regular expression for the output of every one of the tests
//
// A mutant is compiled by way of go build -overlay, so that the tree stays as it is. It must run containers, and be red. All of them
// are tried with TARE_LONG=1 (make mutants), else a few, others each day. A unit test is named in the same way: ./runtime/seccomp -run TestX.
package mutants

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// sample is how many mutants are tried without TARE_LONG=1.
const sample = 4

// mutant is one patch.
type mutant struct {
	name, defence string
	tests         []namedTest
	red           *regexp.Regexp
	patch         string
	files         []string // relative to the root
}

// namedTest is a package, relative to the root, and a pattern of a test and its subtests.
type namedTest struct{ pkg, run string }

var root = sync.OnceValue(func() string {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		panic(err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
})

var header = regexp.MustCompile(`^([a-z]+): (.*)$`)

// load reads a patch and its header.
func load(name string) (*mutant, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	m := &mutant{name: strings.TrimSuffix(filepath.Base(name), ".patch")}
	head, body, ok := strings.Cut(string(data), "--- a/")
	if !ok {
		return nil, errors.New("no line begins with \"--- a/\"")
	}
	m.patch = "--- a/" + body
	for line := range strings.Lines(head) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		f := header.FindStringSubmatch(line)
		switch {
		case f == nil:
			return nil, fmt.Errorf("header line %q is not KEY: VALUE", line)
		case f[1] == "defence":
			m.defence = f[2]
		case f[1] == "red":
			m.red, err = regexp.Compile(f[2])
		case f[1] == "test":
			pkg, run, found := strings.Cut(f[2], " -run ")
			if !found {
				err = fmt.Errorf("test %q has no -run", f[2])
			}
			m.tests = append(m.tests, namedTest{pkg, run})
		default:
			err = fmt.Errorf("header %q is not known", f[1])
		}
		if err != nil {
			return nil, err
		}
	}
	for line := range strings.Lines(m.patch) {
		if file, ok := strings.CutPrefix(strings.TrimSpace(line), "+++ b/"); ok {
			m.files = append(m.files, file)
		}
	}
	if m.defence == "" || m.red == nil || len(m.tests) == 0 || len(m.files) == 0 {
		return nil, errors.New("the header wants defence, test and red, and the patch a file")
	}
	return m, nil
}

// apply writes the changed files below dir and returns the overlay for the go command.
func (m *mutant) apply(dir string) (overlay string, err error) {
	replace := map[string]string{}
	for _, f := range m.files {
		data, err := os.ReadFile(filepath.Join(root(), f))
		if err != nil {
			return "", err
		}
		to := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(to, data, 0o644); err != nil {
			return "", err
		}
		replace[filepath.Join(root(), f)] = to
	}
	c := exec.Command("git", "apply", "-C1", "-")
	c.Dir, c.Stdin = dir, strings.NewReader(m.patch)
	c.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("the patch does not apply any more: %s", out)
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, data, 0o644)
}

// goCommand runs the go command in the root.
func goCommand(args ...string) ([]byte, error) {
	c := exec.Command("go", args...)
	c.Dir = root()
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	return c.CombinedOutput()
}

// build compiles tare-runtime as the Makefile does, with the overlay.
func build(overlay, to string) error {
	flags := "-s -w -buildid="
	if arch, err := goCommand("env", "GOARCH"); err == nil {
		if _, err := os.Stat(filepath.Join(root(), "cmd/tare-runtime/entry_"+strings.TrimSpace(string(arch))+".s")); err == nil {
			flags += " -E tare_entry"
		}
	}
	if out, err := goCommand("build", "-trimpath", "-overlay", overlay, "-ldflags="+flags, "-o", to, "./cmd/tare-runtime"); err != nil {
		return fmt.Errorf("the mutant does not compile: %w\n%s", err, out)
	}
	return nil
}

// suites are the compiled black-box suites, by package.
var suites = map[string]string{}

// suite compiles the tests of a package once.
func suite(t *testing.T, dir, pkg string) string {
	bin := suites[pkg]
	if bin == "" {
		bin = filepath.Join(dir, filepath.Base(pkg)+".test")
		if out, err := goCommand("test", "-c", "-trimpath", "-o", bin, pkg); err != nil {
			t.Fatalf("compile the tests of %s: %v\n%s", pkg, err, out)
		}
		suites[pkg] = bin
	}
	return bin
}

// run runs one test against a runtime, or, when it is a unit test, with the overlay. It returns the output and whether it passed.
func run(t *testing.T, dir, runtime, overlay string, n namedTest) (string, bool) {
	first, rest, _ := strings.Cut(n.run, "/")
	pattern := "^" + first + "$"
	if rest != "" {
		pattern += "/" + rest
	}
	c := exec.Command("go", "test", "-count=1", "-v", "-overlay", overlay, "-run", pattern, n.pkg)
	c.Dir = root()
	if strings.HasPrefix(n.pkg, "./test/") {
		c = exec.Command(suite(t, dir, n.pkg), "-test.v", "-test.timeout=5m", "-test.run", pattern)
		c.Dir = filepath.Join(root(), n.pkg)
	}
	// The short form: what only ten thousand rounds find is found too seldom.
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "RUNTIME="+runtime, "TARE_RUNTIME="+runtime, "TARE_LONG=")
	out, err := c.CombinedOutput()
	return string(out), err == nil
}

// check tries one mutant.
func (m *mutant) check(t *testing.T, dir string) {
	own := t.TempDir()
	for _, d := range []string{own, filepath.Dir(own)} { // tests of other users execute the mutant
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	overlay, err := m.apply(own)
	if err != nil {
		t.Fatal(err)
	}
	runtime := filepath.Join(own, "tare-runtime")
	if err := build(overlay, runtime); err != nil {
		t.Fatal(err)
	}
	if out, ok := run(t, dir, runtime, overlay, namedTest{"./test/escape", "TestControl"}); !ok {
		t.Fatalf("the mutant runs no container, so that its tests tell nothing:\n%s", out)
	}
	for _, n := range m.tests {
		begin := time.Now()
		out, ok := run(t, dir, runtime, overlay, n)
		first, _, _ := strings.Cut(n.run, "/")
		switch {
		case ok:
			t.Errorf("%s -run %s is green without this defence: %s\n%s", n.pkg, n.run, m.defence, out)
		case !strings.Contains(out, "--- FAIL: "+first):
			t.Errorf("%s -run %s did not run: %s", n.pkg, n.run, out)
		case !m.red.MatchString(out):
			t.Errorf("%s -run %s is red for another reason than %q:\n%s", n.pkg, n.run, m.red, out)
		default:
			t.Logf("%s -run %s is red after %.1f s", n.pkg, n.run, time.Since(begin).Seconds())
		}
	}
}

// all loads every mutant.
func all(t *testing.T) (list []*mutant) {
	names, err := filepath.Glob("*.patch")
	if err != nil || len(names) == 0 {
		t.Fatalf("no patches: %v", err)
	}
	slices.Sort(names)
	for _, name := range names {
		m, err := load(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		list = append(list, m)
	}
	return list
}

// TestPatches holds all patches to the tree as it is.
func TestPatches(t *testing.T) {
	for _, m := range all(t) {
		if _, err := m.apply(t.TempDir()); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
}

// TestMutants tries the mutants: each must be found.
func TestMutants(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	list := all(t)
	dir := t.TempDir()
	if os.Getenv("TARE_LONG") != "1" && os.Getenv("MUTANTS") != "all" {
		// Others each day: after some days all have been tried.
		day := int(time.Now().Unix() / 86400)
		for i := range min(sample, len(list)) {
			m := list[(day*sample+i)%len(list)]
			t.Run(m.name, func(t *testing.T) { m.check(t, dir) })
		}
		return
	}
	for _, m := range list {
		t.Run(m.name, func(t *testing.T) { m.check(t, dir) })
	}
}
