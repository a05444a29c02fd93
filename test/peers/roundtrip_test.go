package peers

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

// TestRoundTrips lets everybody push to a registry, and everybody pull what each has pushed.
func TestRoundTrips(t *testing.T) {
	f := images(t)
	for _, r := range []string{"tared", "docker-registry"} {
		t.Run(r, func(t *testing.T) {
			address := registry(t, r)
			for _, from := range clients() {
				t.Run(from.name, func(t *testing.T) { fromTo(t, address, r, from, f, "one", f.one) })
				if from.index {
					t.Run(from.name+" index", func(t *testing.T) { fromTo(t, address, r, from, f, "many", f.many) })
				}
			}
		})
	}
}

// fromTo pushes by one client, and pulls by all; from Debian's registry only tare pulls what others pushed, the others have
// tested that among themselves.
func fromTo(t *testing.T, address, registry string, from client, f fixture, name string, d v1.Descriptor) {
	need(t, append(from.needs, "skopeo")...)
	repository := from.name + "/" + name
	ref := address + "/" + repository + ":1"
	if from.name == "podman" {
		t.Run("push", func(t *testing.T) { podmanPush(t, f, ref) })
		return
	}
	if err := from.push(t, f.dir, name, ref); err != nil {
		t.Fatal(err)
	}
	if got := manifestDigest(t, address, repository, "1"); got != d.Digest.String() {
		t.Fatalf("%s pushed %s, want %s", from.name, got, d.Digest)
	}
	for _, to := range clients() {
		if name == "many" && !to.index || registry == "docker-registry" && from.name != "tare" && to.name != "tare" {
			continue
		}
		t.Run(to.name, func(t *testing.T) {
			need(t, to.needs...)
			to.pull(t, ref, d)
		})
	}
}

// podmanPush loads the image into podman, which compresses its layers anew when it pushes them, and wants everybody to be
// able to pull the result, whatever its digest is.
func podmanPush(t *testing.T, f fixture, ref string) {
	p := podmanArgs()
	do(t, append(p, "pull", "-q", "oci:"+f.dir+":one")...)
	id := strings.TrimSpace(do(t, append(p, "images", "-q", "--no-trunc")...))
	id, _, _ = strings.Cut(id, "\n")
	defer run(append(p, "rmi", "-f", id)...)
	do(t, cmd(p, "push", "-q", plain("--tls-verify=false"), id, ref)...)
	address, rest, _ := strings.Cut(ref, "/")
	repository, tag, _ := strings.Cut(rest, ":")
	want := manifestDigest(t, address, repository, tag)
	for _, to := range clients() {
		if to.name == "podman" {
			continue
		}
		t.Run(to.name, func(t *testing.T) {
			need(t, to.needs...)
			to.pull(t, ref, described(t, address, repository, want))
		})
	}
}

// described returns the descriptor of a manifest in a registry.
func described(t *testing.T, address, repository, digestText string) v1.Descriptor {
	t.Helper()
	resp, body := fetch(t, "http://"+address+"/v2/"+repository+"/manifests/"+digestText, v1.MediaTypeImageManifest, "application/vnd.docker.distribution.manifest.v2+json")
	return v1.Descriptor{MediaType: resp.Header.Get("Content-Type"), Digest: digest.Digest(digestText), Size: int64(len(body))}
}

// fetch gets a document of a registry.
func fetch(t *testing.T, url string, accept ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header["Accept"] = accept
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v\n%s", url, resp.Status, err, body)
	}
	return resp, body
}

// TestListings compares what the clients list in a repository of tared.
func TestListings(t *testing.T) {
	f := images(t)
	address := registry(t, "tared")
	repository := address + "/listed/here"
	for _, tag := range []string{"b", "a", "z.1", "B"} {
		do(t, "tare", "copy", "oci:"+f.dir+":one", "docker://"+repository+":"+tag)
	}
	want := "B a b z.1"
	for name, argv := range map[string][]string{
		"tare":   {"tare", "search", repository},
		"crane":  {"crane", "ls", "--insecure", repository},
		"regctl": {"regctl", "--host", "reg=" + address + ",tls=disabled", "tag", "ls", repository},
		"oras":   {"oras", "repo", "tags", "--plain-http", repository},
	} {
		t.Run(name, func(t *testing.T) {
			need(t, argv[0])
			if got := strings.Join(strings.Fields(do(t, argv...)), " "); got != want {
				t.Errorf("lists %s, want %s", got, want)
			}
		})
	}
	t.Run("skopeo", func(t *testing.T) {
		need(t, "skopeo")
		var list struct{ Tags []string }
		if err := json.Unmarshal([]byte(do(t, "skopeo", "list-tags", "--tls-verify=false", "docker://"+repository)), &list); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(list.Tags, " "); got != want {
			t.Errorf("lists %s, want %s", got, want)
		}
	})
}

// TestLayoutsOfOthers reads with umoci what tare wrote, and writes with tare what umoci wrote.
func TestLayoutsOfOthers(t *testing.T) {
	need(t, "umoci")
	f := images(t)
	dir := filepath.Join(t.TempDir(), "layout")
	do(t, "tare", "copy", "oci:"+f.dir+":one", "oci:"+dir+":x")
	bundle := filepath.Join(t.TempDir(), "bundle")
	do(t, "umoci", "unpack", "--image", dir+":x", bundle)
	if _, err := os.Stat(bundle + "/rootfs/etc/removed"); err == nil {
		t.Error("a removed file is there")
	}
	if err := os.WriteFile(bundle+"/rootfs/etc/new", []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	do(t, "umoci", "repack", "--image", dir+":y", bundle)
	root := filepath.Join(t.TempDir(), "root")
	do(t, "tare", "copy", "--root", root, "oci:"+dir+":y", "store:localhost/umoci:y")
	if out := do(t, "tare", "run", "--root", root, "--rm", "localhost/umoci:y", "/bin/busybox", "cat", "/etc/new"); out != "new" {
		t.Errorf("the file that umoci added is %q", out)
	}
}
