package house

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite cmd/*/deps.txt")

// port is the architecture that the dependency lists and sizes are of.
const port = "amd64"

// forbidden names, per binary, packages that it must not link, as prefixes, with the reason.
var forbidden = map[string][]struct{ prefix, why string }{
	"tare-runtime": {
		{"net", "a runtime does not talk to the network, and these packages cost start-up time and size"},
		{"text/template", "reflection defeats the linker's removal of dead code"},
		{"html/template", "reflection defeats the linker's removal of dead code"},
		{"regexp", "compiling expressions at start-up costs more than starting a container"},
		{"go", "the Go compiler's front end has no place in a runtime"},
		{"log", "a library does not log; the command line writes its one error itself"},
		{"os/user", "users are looked up in the container, not on the host"},
		{"encoding/xml", "nothing in OCI is XML"},
		{"google.golang.org/protobuf", "protobuf registers thousands of types before main"},
		{"google.golang.org/grpc", "only tared speaks gRPC"},
		{"github.com/spf13", "a command-line framework costs more start-up time than the runtime"},
		{"github.com/urfave", "a command-line framework costs more start-up time than the runtime"},
		{"github.com/sirupsen", "a library does not log; the command line writes its one error itself"},
	},
	"tare": {
		{"google.golang.org/grpc", "only tared speaks gRPC"},
		{"google.golang.org/protobuf", "protobuf registers thousands of types before main"},
	},
}

// maxSize limits stripped binaries, in bytes: size is download and page-in time on every host.
var maxSize = map[string]int64{"tare-runtime": 6 << 20}

func run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = root()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+port)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// commands returns the names of the binaries.
func commands(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root(), "cmd"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if main, _ := filepath.Glob(filepath.Join(root(), "cmd", e.Name(), "*.go")); len(main) > 0 {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestForbiddenPackages(t *testing.T) {
	for _, c := range commands(t) {
		for _, p := range strings.Fields(run(t, "go", "list", "-deps", "./cmd/"+c)) {
			for _, f := range forbidden[c] {
				if p == f.prefix || strings.HasPrefix(p, f.prefix+"/") && p != "net/netip" {
					t.Errorf("%s links %s: %s", c, p, f.why)
				}
			}
		}
	}
}

// TestDependencyLists keeps what a binary links from outside of the module as a reviewable diff. The packages of the
// module itself are left to the import directions, and the standard library's internal ones to the Go version.
func TestDependencyLists(t *testing.T) {
	for _, c := range commands(t) {
		var list []string
		for _, p := range strings.Fields(run(t, "go", "list", "-deps", "./cmd/"+c)) {
			inside := p == module || strings.HasPrefix(p, module+"/")
			standard := !strings.Contains(strings.SplitN(p, "/", 2)[0], ".")
			hidden := strings.HasPrefix(p, "vendor/") || slices.Contains(strings.Split(p, "/"), "internal")
			if !inside && !(standard && hidden) {
				list = append(list, p)
			}
		}
		slices.Sort(list)
		got := strings.Join(list, "\n") + "\n"
		file := filepath.Join(root(), "cmd", c, "deps.txt")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(file)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if string(want) != got {
			t.Errorf("cmd/%s/deps.txt is not what the binary links: %s. A new dependency is a decision: if it is meant, run "+
				"`make deps-update` and commit the list", c, difference(strings.Fields(string(want)), list))
		}
	}
}

func difference(old, new []string) string {
	var out []string
	for _, p := range new {
		if !slices.Contains(old, p) {
			out = append(out, "+"+p)
		}
	}
	for _, p := range old {
		if !slices.Contains(new, p) {
			out = append(out, "-"+p)
		}
	}
	return strings.Join(out, " ")
}

func TestBinarySizes(t *testing.T) {
	for _, c := range commands(t) {
		limit, ok := maxSize[c]
		if !ok {
			continue
		}
		out := filepath.Join(t.TempDir(), c)
		run(t, "go", "build", "-trimpath", "-ldflags=-s -w -buildid=", "-o", out, "./cmd/"+c)
		fi, err := os.Stat(out)
		if err != nil {
			t.Fatal(err)
		}
		if fi.Size() > limit {
			t.Errorf("%s has %d bytes, at most %d: it is read from disk for every operation. `go tool nm -size -sort size` shows why",
				c, fi.Size(), limit)
		}
	}
}
