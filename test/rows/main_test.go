// Package rows is the black-box suite of requirements that no other suite shows: tare and tared as people start them, and a
// recorder between them. docs/conformance/images.md says which row each test is for.
package rows

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var binDir, suiteDir string

func TestMain(m *testing.M) { os.Exit(suite(m)) }

func suite(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Println("the suite of the rows needs root")
		return 1
	}
	cmd := exec.Command("make", "-s", "build")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Printf("make build: %v\n%s", err, out)
		return 1
	}
	var err error
	if binDir, err = filepath.Abs("../../bin"); err == nil {
		suiteDir, err = os.MkdirTemp("/var/tmp", "tare-rows-")
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(suiteDir)
	// No credentials or settings of whoever runs the tests are found.
	for name, value := range map[string]string{"HOME": suiteDir, "XDG_RUNTIME_DIR": suiteDir, "DOCKER_CONFIG": filepath.Join(suiteDir, "docker")} {
		os.Setenv(name, value)
	}
	os.Unsetenv("XDG_CONFIG_HOME")
	os.Unsetenv("REGISTRY_AUTH_FILE")
	return m.Run()
}

// tare is the command with a root of its own.
type tare struct {
	*testing.T
	root string
}

func newTare(t *testing.T) tare { return tare{t, filepath.Join(t.TempDir(), "root")} }

func (x tare) command(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, filepath.Join(binDir, "tare"), append([]string{args[0], "--root", x.root}, args[1:]...)...)
	c.WaitDelay = 5 * time.Second
	return c
}

// try runs tare and returns its standard output; the error has what it said.
func (x tare) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	c := x.command(ctx, args...)
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		return stdout.String(), fmt.Errorf("tare %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

func (x tare) do(args ...string) string {
	x.Helper()
	out, err := x.try(args...)
	if err != nil {
		x.Fatal(err)
	}
	return out
}

// refused runs tare, which has to fail and say text.
func (x tare) refused(text string, args ...string) {
	x.Helper()
	if out, err := x.try(args...); err == nil || !strings.Contains(err.Error(), text) {
		x.Errorf("tare %s: %s, %v; want an error with %q", strings.Join(args, " "), out, err, text)
	}
}

// request is what was asked of a registry.
type request struct {
	method, path string
	query        url.Values
	header       http.Header
}

// registry is a tared with a recorder before it.
type registry struct {
	*testing.T
	addr string // host:port of the recorder
	mu   sync.Mutex
	log  []request
}

func newRegistry(t *testing.T) *registry {
	t.Helper()
	cmd := exec.Command(filepath.Join(binDir, "tared"), "registry", "--listen", "127.0.0.1:0", "--root", t.TempDir())
	said := &output{}
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	listening := regexp.MustCompile(`127\.0\.0\.1:\d+`)
	var addr string
	for end := time.Now().Add(time.Minute); addr == ""; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("tared does not listen: %s", said)
		}
		addr = listening.FindString(said.String())
	}
	x := &registry{T: t}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: addr})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x.mu.Lock()
		x.log = append(x.log, request{r.Method, r.URL.Path, r.URL.Query(), r.Header.Clone()})
		x.mu.Unlock()
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	x.addr = s.Listener.Addr().String()
	return x
}

// seen returns what was asked since the last call.
func (x *registry) seen() []request {
	x.mu.Lock()
	defer x.mu.Unlock()
	log := x.log
	x.log = nil
	return log
}

// get asks the registry for a path below /v2/.
func (x *registry) get(path string) (status int, header http.Header, body []byte) {
	x.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+x.addr+"/v2/"+path, nil)
	if err != nil {
		x.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		x.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil {
		x.Fatal(err)
	}
	return resp.StatusCode, resp.Header, body
}

// output is what a process writes, which is read while it does.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// index returns where in list the first element is that ok holds for, or fails the test.
func index[E any](t *testing.T, what string, list []E, ok func(E) bool) int {
	t.Helper()
	i := slices.IndexFunc(list, ok)
	if i < 0 {
		t.Fatalf("there is no %s in %v", what, list)
	}
	return i
}
