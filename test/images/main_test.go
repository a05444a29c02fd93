// Package images is the black-box suite of tare's commands for images: everything goes through the built binary, against
// Debian's registry on loopback, with skopeo, umoci and podman as second opinions.
package images

import (
	"bytes"
	"context"
	"errors"
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
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	tare     string // the binary under test
	suiteDir string
	layout   string // an OCI layout with the images one and multi
	host     string // of the registry, HOST:PORT
)

func TestMain(m *testing.M) {
	os.Exit(suite(m))
}

func suite(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Println("the suite of images needs root")
		return 1
	}
	var err error
	if suiteDir, err = os.MkdirTemp("", "tare-images-"); err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(suiteDir)
	if err := os.Chmod(suiteDir, 0o755); err != nil { // for the tests as another user
		fmt.Println(err)
		return 1
	}
	cmd := exec.Command("make", "-s", "build")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Printf("make build: %v\n%s", err, out)
		return 1
	}
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	tare = filepath.Join(bin, "tare")
	layout = filepath.Join(suiteDir, "layout")
	if err := makeLayout(layout); err != nil {
		fmt.Println("make images:", err)
		return 1
	}
	r, err := startRegistry("")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer r.stop()
	host = r.host
	return m.Run()
}

// A registry is a docker-registry that runs.
type registry struct {
	cmd  *exec.Cmd
	host string
}

var listening = regexp.MustCompile(`listening on ([0-9.:]+)`)

// startRegistry starts Debian's registry on a port that the kernel chooses, with the further configuration more.
func startRegistry(more string) (*registry, error) {
	dir, err := os.MkdirTemp(suiteDir, "registry-")
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: info, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\n"+
		"http: {addr: '127.0.0.1:0'}\n%s", filepath.Join(dir, "data"), more)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	r := &registry{cmd: exec.Command("docker-registry", "serve", config)}
	log, err := r.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("the suite needs Debian's docker-registry: %w", err)
	}
	found := make(chan string, 1)
	go func() {
		var seen bytes.Buffer
		buf := make([]byte, 4096)
		for {
			n, err := log.Read(buf)
			if seen.Len() < 1<<20 {
				seen.Write(buf[:n])
			}
			if m := listening.FindSubmatch(seen.Bytes()); m != nil {
				select {
				case found <- string(m[1]):
				default:
				}
			}
			if err != nil {
				return
			}
		}
	}()
	select {
	case r.host = <-found:
		return r, nil
	case <-time.After(60 * time.Second):
		r.stop()
		return nil, errors.New("docker-registry does not say where it listens")
	}
}

func (r *registry) stop() {
	r.cmd.Process.Kill()
	r.cmd.Wait()
}

// A box is a root directory and an environment for tare.
type box struct {
	t    *testing.T
	dir  string
	root string
	env  []string
}

func newBox(t *testing.T) *box {
	t.Helper()
	dir := t.TempDir()
	b := &box{t: t, dir: dir, root: filepath.Join(dir, "root")}
	b.env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir+"/config", "XDG_RUNTIME_DIR="+dir+"/run", "XDG_DATA_HOME="+dir+"/data",
		"DOCKER_CONFIG="+dir+"/docker", "REGISTRY_AUTH_FILE=", "SOURCE_DATE_EPOCH=")
	return b
}

type result struct {
	out, err string
	code     int
}

// run calls tare with words separated by spaces, and the root.
func (b *box) run(line string, more ...string) result {
	b.t.Helper()
	return b.input(nil, line, more...)
}

func (b *box) input(in io.Reader, line string, more ...string) result {
	b.t.Helper()
	words := strings.Fields(line)
	at := 1
	if words[0] == "image" {
		at = 2
	}
	args := append(append([]string{}, words[:at]...), "--root", b.root)
	args = append(append(args, words[at:]...), more...)
	return b.command(in, tare, args...)
}

func (b *box) command(in io.Reader, name string, args ...string) result {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env, cmd.Dir, cmd.Stdin = b.env, b.dir, in
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatal(err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// ok calls tare and returns what it wrote, without the space around it.
func (b *box) ok(line string, more ...string) string {
	b.t.Helper()
	r := b.run(line, more...)
	if r.code != 0 {
		b.t.Fatalf("tare %s %q: status %d\n%s%s", line, more, r.code, r.out, r.err)
	}
	return strings.TrimSpace(r.out)
}

// fails calls tare and checks that it fails with a sentence.
func (b *box) fails(code int, want, line string, more ...string) {
	b.t.Helper()
	r := b.run(line, more...)
	if r.code != code || !strings.Contains(r.err, want) {
		b.t.Errorf("tare %s: status %d, %q; want %d, %q", line, r.code, r.err, code, want)
	}
}

// peer calls another program, which has to succeed.
func (b *box) peer(name string, args ...string) string {
	b.t.Helper()
	r := b.command(nil, name, args...)
	if r.code != 0 {
		b.t.Fatalf("%s %q: status %d\n%s%s", name, args, r.code, r.out, r.err)
	}
	return strings.TrimSpace(r.out)
}

// seed puts an image of the layout into the registry, as skopeo does it, and returns its name there.
func (b *box) seed(image string) string {
	b.t.Helper()
	name := host + "/" + strings.ToLower(b.t.Name()) + "/" + image + ":1"
	b.peer("skopeo", "copy", "-q", "--all", "--dest-tls-verify=false", "oci:"+layout+":"+image, "docker://"+name)
	return name
}

// raw returns the bytes of what a name stands for in the registry, by skopeo.
func (b *box) raw(name string) string {
	b.t.Helper()
	return b.peer("skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+name)
}

// A counter is a proxy before a registry that counts what is asked of it, and can be slow.
type counter struct {
	host string
	mu   sync.Mutex
	gets map[string]int // by path
}

func countingProxy(t *testing.T, delay time.Duration) *counter {
	t.Helper()
	c := &counter{gets: map[string]int{}}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host})
	proxy.FlushInterval = -1
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			c.mu.Lock()
			c.gets[r.URL.Path]++
			c.mu.Unlock()
		}
		if strings.Contains(r.URL.Path, "/blobs/") {
			time.Sleep(delay) // a registry that is far away
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	c.host = strings.TrimPrefix(srv.URL, "http://")
	return c
}
