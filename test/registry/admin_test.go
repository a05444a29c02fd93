// Package registry runs the registry as a process, with the clients and the browser that people use.
package registry

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// topSecret is in every password of these tests: it must be in no log, dump or message.
const topSecret = "TOPSECRET-"

// built is where the binary is, until the tests end.
var built string

func TestMain(m *testing.M) {
	var err error
	if built, err = os.MkdirTemp("", "tared-test"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(built)
	os.Exit(code)
}

// buildTared builds the binary from the source that is tested.
var buildTared = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(built, "tared")
	cmd := exec.Command("go", "build", "-o", bin, "./cmd/tared")
	cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build tared: %w\n%s", err, out)
	}
	return bin, nil
})

func tared(t *testing.T) string {
	t.Helper()
	bin, err := buildTared()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// running is a registry as a process.
type running struct {
	*exec.Cmd
	addr, metrics string // host:port
	dir           string
	said          *said
	done          chan error
}

// said is what a process writes, which is read while it does.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// await waits until the process has said something.
func (s *said) await(t *testing.T, expression string) []string {
	t.Helper()
	e := regexp.MustCompile(expression)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if m := e.FindStringSubmatch(s.String()); m != nil {
			return m
		}
	}
	t.Fatalf("%s is not in %q", expression, s.String())
	return nil
}

// htpasswdFile writes a file of users whose passwords are topSecret and their name.
func htpasswdFile(t *testing.T, dir string, users ...string) string {
	t.Helper()
	file := filepath.Join(dir, "users")
	for i, u := range users {
		args := []string{"-Bb", "-C", "4", file, u, topSecret + u}
		if i == 0 {
			args[0] = "-Bbc"
		}
		if out, err := exec.Command("htpasswd", args...).CombinedOutput(); err != nil {
			t.Fatalf("htpasswd: %v %s", err, out)
		}
	}
	return file
}

func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("there is no %s on this machine", p)
		}
	}
}

// startTared starts a registry with a configuration, which may have no listen and root.
func startTared(t *testing.T, toml string, args ...string) *running {
	t.Helper()
	x := &running{dir: t.TempDir(), said: &said{}, done: make(chan error, 1)}
	if err := os.WriteFile(filepath.Join(x.dir, "config.toml"), []byte(toml), 0o600); err != nil {
		t.Fatal(err)
	}
	x.start(t, args...)
	return x
}

func (x *running) start(t *testing.T, args ...string) {
	t.Helper()
	x.Cmd = exec.Command(tared(t), append([]string{"registry", "--config", filepath.Join(x.dir, "config.toml"), "--listen", "127.0.0.1:0", "--root", filepath.Join(x.dir, "root"),
		"--metrics", "127.0.0.1:0"}, args...)...)
	x.Stderr, x.Stdout = x.said, x.said
	if err := x.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { x.done <- x.Wait(); close(x.done) }()
	t.Cleanup(func() {
		_ = x.Process.Kill()
		<-x.done
		if strings.Contains(x.said.String(), topSecret) {
			t.Errorf("a secret was said: %s", x.said)
		}
	})
	x.metrics = x.said.await(t, `metrics on http://(\S+)/metrics`)[1]
	x.addr = x.said.await(t, `registry on https?://(\S+)\n`)[1]
}

// get asks the registry and returns status and body.
func (x *running) get(t *testing.T, path, user string) (int, string) {
	t.Helper()
	r, err := http.NewRequest("GET", "http://"+x.addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		r.SetBasicAuth(user, topSecret+user)
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return a.StatusCode, string(body)
}

func TestTaredCommandLine(t *testing.T) {
	bin := tared(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "c.toml")
	if err := os.WriteFile(file, []byte("[s3]\nendpoint = \"http://127.0.0.1:1\"\nbucket = \"b\"\naccess-key = \"a\"\nsecret-key = \""+topSecret+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		exit int
		want string
	}{
		{"", 0, "Usage: tared COMMAND"},
		{"--help", 0, "registry"},
		{"version", 0, "tared version"},
		{"nonsense", 2, `unknown command "nonsense"`},
		{"registry --nonsense", 2, "unknown option --nonsense"},
		{"registry operand", 2, `unexpected operand "operand"`},
		{"registry --help", 0, "SIGHUP"},
		{"registry --config /none", 1, "no such file"},
		{"registry --tls-cert x", 1, "certificate and key go together"},
		{"registry --check --config " + file + " --listen 1.2.3.4:5", 0, `listen = "1.2.3.4:5"`},
		{"registry --check --config " + file, 0, `secret-key = "(hidden)"`},
		{"registry --listen nonsense --root " + dir + "/root", 1, "nonsense"},
		{"registry --htpasswd /none --root " + dir + "/root --listen 127.0.0.1:0", 1, "no such file"},
	} {
		cmd := exec.Command(bin, strings.Fields(c.args)...)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != c.exit || !strings.Contains(string(out), c.want) || strings.Contains(string(out), topSecret) {
			t.Errorf("tared %s: status %d, %s; want %d, %s", c.args, got, out, c.exit, c.want)
		}
	}
}

const permissions = `[auth]
htpasswd = "%s"
[log]
access = "access.log"
[[permission]]
repositories = ["**"]
users = ["alice"]
actions = ["pull", "push", "delete"]
[[permission]]
repositories = ["open/**"]
anonymous = true
actions = ["pull"]
`

// TestTokenFlow: a client of Docker's token flow logs in at the registry itself.
func TestTokenFlow(t *testing.T) {
	need(t, "htpasswd", "skopeo", "umoci")
	users := htpasswdFile(t, t.TempDir(), "alice", "bob")
	x := startTared(t, fmt.Sprintf(permissions, users))
	image := filepath.Join(x.dir, "image")
	for _, args := range [][]string{{"umoci", "init", "--layout", image}, {"umoci", "new", "--image", image + ":1"}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v %s", args, err, out)
		}
	}
	copyTo := func(user, password, repo string) (string, error) {
		out, err := exec.Command("skopeo", "copy", "--dest-tls-verify=false", "--dest-creds", user+":"+password, "oci:"+image+":1", "docker://"+x.addr+"/"+repo+":1").CombinedOutput()
		return string(out), err
	}
	for _, repo := range []string{"open/a", "closed/a"} {
		if out, err := copyTo("alice", topSecret+"alice", repo); err != nil {
			t.Errorf("alice to %s: %s", repo, out)
		}
		if out, err := copyTo("bob", topSecret+"bob", repo); err == nil || !strings.Contains(out, "denied") && !strings.Contains(out, "Forbidden") {
			t.Errorf("bob to %s: %v %s", repo, err, out)
		}
		if out, err := copyTo("alice", "wrong", repo); err == nil {
			t.Errorf("a wrong password to %s: %s", repo, out)
		}
		out, err := exec.Command("skopeo", "inspect", "--no-creds", "--tls-verify=false", "docker://"+x.addr+"/"+repo+":1").CombinedOutput()
		if (err == nil) != (repo == "open/a") {
			t.Errorf("nobody from %s: %v %s", repo, err, out)
		}
	}
	if code, body := x.get(t, "/v2/_catalog", "alice"); code != 200 || strings.TrimSpace(body) != `{"repositories":["closed/a","open/a"]}` {
		t.Errorf("alice sees %d %s", code, body)
	}
	if code, body := x.get(t, "/v2/_catalog", "bob"); code != 200 || strings.TrimSpace(body) != `{"repositories":["open/a"]}` {
		t.Errorf("bob sees %d %s", code, body)
	}
	log, err := os.ReadFile(filepath.Join(x.dir, "access.log"))
	if err != nil || bytes.Contains(log, []byte(topSecret)) || !bytes.Contains(log, []byte(`"user":"alice"`)) || bytes.Contains(log, []byte("Bearer")) || bytes.Contains(log, []byte("eyJ")) {
		t.Errorf("access log: %v %s", err, log)
	}
	var text []byte
	for end := time.Now().Add(time.Minute); !bytes.Contains(text, []byte("tared_storage_blobs 1\n")) && time.Now().Before(end); time.Sleep(5 * time.Millisecond) { // counted behind the answer
		a, err := http.Get("http://" + x.metrics + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, err = io.ReadAll(a.Body)
		if a.Body.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Contains(text, []byte(`tared_http_requests_total{route="manifest",method="PUT",code="201"} 2`)) || !bytes.Contains(text, []byte("tared_storage_blobs 1\n")) {
		t.Errorf("metrics: %s", text)
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200} {
		if code, _ := x.get(t, path, ""); code != want {
			t.Errorf("%s: %d", path, code)
		}
	}
}

// TestHangUp: permissions and the access log change under way.
func TestHangUp(t *testing.T) {
	need(t, "htpasswd")
	users := htpasswdFile(t, t.TempDir(), "alice")
	x := startTared(t, fmt.Sprintf(permissions, users))
	list := func() int { code, _ := x.get(t, "/v2/closed/a/tags/list", "alice"); return code }
	if got := list(); got != 404 {
		t.Fatalf("before: %d", got)
	}
	config := filepath.Join(x.dir, "config.toml")
	if err := os.WriteFile(config, []byte(strings.ReplaceAll(fmt.Sprintf(permissions, users), `["alice"]`, `["bob"]`)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(x.dir, "access.log"), filepath.Join(x.dir, "old.log")); err != nil {
		t.Fatal(err)
	}
	if err := x.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	x.said.await(t, "reloaded the permissions")
	if got := list(); got != 403 {
		t.Errorf("after: %d", got)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) { // the line comes after the answer
		if log, err := os.ReadFile(filepath.Join(x.dir, "access.log")); err == nil && bytes.Contains(log, []byte(`"status":403`)) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the new log has no line")
		}
	}
	if err := os.WriteFile(config, []byte("nonsense = 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := x.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	x.said.await(t, "line 1: unknown key nonsense")
	if got := list(); got != 403 {
		t.Errorf("with a broken configuration: %d", got)
	}
}

// TestTerminate: an upload under way is finished after SIGTERM, and then the registry ends without an error.
func TestTerminate(t *testing.T) {
	x := startTared(t, "")
	c, err := net.Dial("tcp", x.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" // of hello
	fmt.Fprintf(c, "POST /v2/a/blobs/uploads/?digest=%s HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", digest)
	in := bufio.NewReader(c)
	if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, " 100 ") {
		t.Fatalf("%q, %v", line, err)
	}
	if err := x.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for { // until nobody else is let in
		other, err := net.Dial("tcp", x.addr)
		if err != nil {
			break
		}
		other.Close()
	}
	fmt.Fprint(c, "hello")
	rest, err := io.ReadAll(in)
	if err != nil || !strings.Contains(string(rest), " 201 ") {
		t.Errorf("the upload was answered %q, %v", rest, err)
	}
	if err := <-x.done; err != nil {
		t.Errorf("the end: %v, %s", err, x.said)
	}
	x.done = make(chan error)
	close(x.done)
	y := &running{dir: x.dir, said: &said{}, done: make(chan error, 1)}
	y.start(t)
	if code, body := y.get(t, "/v2/a/blobs/"+digest, ""); code != 200 || body != "hello" {
		t.Errorf("afterwards: %d %q", code, body)
	}
}

// TestStrangersPage: what a browser sends for the page of a stranger does not change anything.
func TestStrangersPage(t *testing.T) {
	x := startTared(t, "")
	for header, want := range map[string]int{"": 202, "cross-site": 403, "same-site": 403} {
		r, err := http.NewRequest("POST", "http://"+x.addr+"/v2/a/blobs/uploads/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if header != "" {
			r.Header.Set("Sec-Fetch-Site", header)
		}
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		if a.StatusCode != want {
			t.Errorf("%q: %d, want %d", header, a.StatusCode, want)
		}
	}
}

// TestConformanceWithLogin runs the conformance tool by a login: with tokens of the registry itself, and with Basic only.
func TestConformanceWithLogin(t *testing.T) {
	tool := conformance(t)
	need(t, "htpasswd")
	for _, more := range []string{"", "token-endpoint = false\n"} {
		users := htpasswdFile(t, t.TempDir(), "alice")
		x := startTared(t, fmt.Sprintf("[auth]\nhtpasswd = %q\n%s", users, more))
		cmd := exec.Command(tool)
		cmd.Env = append(os.Environ(), "OCI_REGISTRY="+x.addr, "OCI_TLS=disabled", "OCI_VERSION=dev", "OCI_DATA_SPARSE=true", "OCI_USERNAME=alice", "OCI_PASSWORD="+topSecret+"alice",
			"OCI_REPO1=conformance/one", "OCI_REPO2=conformance/two", "OCI_RESULTS_DIR="+t.TempDir())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%q: %v\n%s", more, err, failures(string(out)))
		}
	}
}
