package images

import (
	"bytes"
	"fmt"
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
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// startTared starts tared's registry on a port that the kernel chooses and returns its HOST:PORT.
func startTared(t *testing.T, config string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/config.toml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	said := &transcript{}
	cmd := exec.Command(filepath.Join(filepath.Dir(tare), "tared"), "registry", "--config", dir+"/config.toml", "--listen", "127.0.0.1:0", "--root", dir+"/root")
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	at := regexp.MustCompile(`registry on http://(\S+)\n`)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if m := at.FindStringSubmatch(said.String()); m != nil {
			return m[1]
		}
	}
	t.Fatalf("tared does not say where it listens: %s", said)
	return ""
}

// A transcript is what a process writes, which may be read meanwhile.
type transcript struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *transcript) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestPushReferrers pulls an image with what refers to it, and pushes both: oras finds the note, and the note on the note, at a
// registry with the referrers API and at one without.
func TestPushReferrers(t *testing.T) {
	path, err := filepath.Abs("../../.cache/bin")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", path+":"+os.Getenv("PATH"))
	if _, err := exec.LookPath("oras"); err != nil {
		t.Skip("oras is not there: scripts/deps.sh says why")
	}
	for kind, address := range map[string]string{"tared": startTared(t, ""), "docker-registry": host} {
		b := newBox(t)
		ref := address + "/noted/first:1"
		b.ok("copy -q oci:" + layout + ":one docker://" + ref)
		if err := os.WriteFile(b.dir+"/note", []byte("a note on "+kind), 0o600); err != nil {
			t.Fatal(err)
		}
		attach := []string{"attach", "--plain-http", "--disable-path-validation", "--format", "go-template={{.digest}}", "--artifact-type"}
		on := b.peer("oras", append(attach, "application/x-note", ref, b.dir+"/note:text/plain")...)
		b.peer("oras", append(attach, "application/x-note-on-note", address+"/noted/first@"+on, b.dir+"/note:text/plain")...)
		b.ok("pull -q --no-unpack --referrers " + ref)
		b.ok("prune")
		second := address + "/noted/second:1"
		b.ok("tag " + ref + " " + second)
		b.ok("push -q " + second)
		discover := []string{"discover", "--plain-http", "--depth", "2", "--format", "json"}
		if out := b.peer("oras", append(discover, second)...); strings.Contains(out, "x-note") {
			t.Errorf("%s: pushed without being asked: %s", kind, out)
		}
		b.ok("push -q --referrers " + second)
		loseReferrersTag(b, address, "noted/second", digest.FromString(rawOf(b, second)))
		b.ok("push -q --referrers " + second)
		third := address + "/noted/third:1"
		b.ok("copy -q --referrers store:" + ref + " docker://" + third)
		for _, name := range []string{second, third} {
			out := b.peer("oras", append(discover, name)...)
			if strings.Count(out, `"application/x-note"`) != 1 || strings.Count(out, `"application/x-note-on-note"`) != 1 {
				t.Errorf("%s: discovered at %s: %s", kind, name, out)
			}
		}
		b.ok("rmi " + ref + " " + second)
		if left, err := filepath.Glob(b.root + "/store/blobs/*/*"); err != nil || len(left) > 0 {
			t.Errorf("%s: the store without names has %q, %v", kind, left, err)
		}
	}
}

// loseReferrersTag makes of a registry without the referrers API one where a push broke off before it listed its referrer.
func loseReferrersTag(b *box, address, repository string, subject digest.Digest) {
	b.t.Helper()
	tag := "sha256-" + subject.Encoded()
	if address != host {
		return
	}
	r := b.command(nil, "skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+address+"/"+repository+":"+tag)
	req, err := http.NewRequest(http.MethodDelete, "http://"+address+"/v2/"+repository+"/manifests/"+digest.FromString(r.out).String(), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		b.t.Fatalf("delete the index under tag %s: %s %s", tag, resp.Status, r.err)
	}
}

// A mountProxy is before a registry and notes mounts that are asked for and what is uploaded of blobs.
type mountProxy struct {
	host string
	mu   sync.Mutex
	from []string // of mounts
	sent int64    // bytes of blobs
}

// newMountProxy makes one. refuse hides from the registry that it is asked for mounts: it opens an upload, as one does that
// has no mounts.
func newMountProxy(t *testing.T, registry string, refuse bool) *mountProxy {
	t.Helper()
	p := &mountProxy{}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: registry})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/uploads/") {
			p.mu.Lock()
			p.sent += max(0, r.ContentLength)
			if r.URL.Query().Has("mount") {
				p.from = append(p.from, r.URL.Query().Get("from"))
			}
			p.mu.Unlock()
			if refuse && r.URL.Query().Has("mount") {
				r.URL.RawQuery = ""
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	p.host = strings.TrimPrefix(srv.URL, "http://")
	return p
}

// since returns what was noted since it was called last.
func (p *mountProxy) since() (from []string, sent int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	from, sent = p.from, p.sent
	p.from, p.sent = nil, 0
	return from, sent
}

// TestPushMounts pushes an image a second time to another repository of the registry.
func TestPushMounts(t *testing.T) {
	users := filepath.Join(t.TempDir(), "users")
	for i, user := range []string{"all", "one"} {
		flags := []string{"-Bbc", "-Bb"}[i]
		if out, err := exec.Command("htpasswd", flags, "-C", "4", users, user, "word").CombinedOutput(); err != nil {
			t.Fatalf("htpasswd: %v %s", err, out)
		}
	}
	permissions := fmt.Sprintf("[auth]\nhtpasswd = %q\ntoken-endpoint = %%v\n[[permission]]\nrepositories = [\"**\"]\nusers = [\"all\"]\nactions = [\"pull\", \"push\"]\n"+
		"[[permission]]\nrepositories = [\"mounts/*\"]\nusers = [\"one\"]\nactions = [\"pull\", \"push\"]\n", users)
	for _, c := range []struct {
		name, config  string
		debian        bool
		refuse, users bool
	}{
		{name: "tared"},
		{name: "docker-registry", debian: true},
		{name: "a registry without mounts", refuse: true},
		{name: "forbidden by tokens", users: true, config: fmt.Sprintf(permissions, true)},
		{name: "forbidden by passwords", users: true, config: fmt.Sprintf(permissions, false)},
	} {
		t.Run(c.name, func(t *testing.T) {
			registry := host
			if !c.debian {
				registry = startTared(t, c.config)
			}
			p := newMountProxy(t, registry, c.refuse)
			b := newBox(t)
			login := func(user string) {
				if c.users {
					b.peer(tare, "login", "-u", user, "-p", "word", p.host)
				}
			}
			login("all")
			first := p.host + "/private/first:1"
			b.ok("copy -q oci:" + layout + ":one store:" + first)
			b.ok("tag " + first + " elsewhere.example/secret/name:1")
			b.ok("push -q " + first)
			from, all := p.since()
			if len(from) > 0 || all < 6<<20 {
				t.Fatalf("the first push sent %d bytes and asked for mounts from %q", all, from)
			}
			login("one")
			second := p.host + "/mounts/second:1"
			b.ok("tag " + first + " " + second)
			b.ok("push -q " + second)
			from, sent := p.since()
			others := slices.DeleteFunc(slices.Clone(from), func(s string) bool { return s == "private/first" })
			if len(others) > 0 || len(from) == 0 {
				t.Errorf("mounts from %q", from)
			}
			want := int64(0)
			if c.refuse || c.users {
				want = all
			}
			if sent != want {
				t.Errorf("%d bytes of blobs were sent, want %d", sent, want)
			}
			b.ok("copy -q store:" + first + " docker://" + p.host + "/mounts/third:1")
			if _, sent := p.since(); sent != 0 && !c.refuse {
				t.Errorf("copy sent %d bytes of blobs", sent)
			}
			b.ok("copy -q docker://" + p.host + "/mounts/third:1 oci:" + b.dir + "/back:1")
		})
	}
}
