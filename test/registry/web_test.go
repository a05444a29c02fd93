package registry

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// browse opens a page in a browser and returns the document as the browser understands it.
func browse(t *testing.T, dir, url string, more ...string) string {
	t.Helper()
	args := append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
		"--user-data-dir=" + filepath.Join(dir, "profile"), "--virtual-time-budget=5000"}, more...)
	cmd := exec.Command("chromium", append(args, "--dump-dom", url)...)
	cmd.Env = append(os.Environ(), "HOME="+dir, "http_proxy=", "https_proxy=", "no_proxy=*")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("chromium %s: %v", url, err)
	}
	return string(out)
}

// push sends a blob or manifest to a registry.
func push(t *testing.T, x *running, method, path, mediaType, body string) {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+x.addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", mediaType)
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	if a.StatusCode != 201 {
		t.Fatalf("%s %s: %s", method, path, a.Status)
	}
}

// TestBrowser: a browser shows the pages, and what strangers wrote into an image stays text.
func TestBrowser(t *testing.T) {
	need(t, "chromium")
	if out, err := exec.Command("chromium", "--version").CombinedOutput(); err != nil {
		t.Skipf("chromium of this machine does not start: %v: %s", err, out)
	}
	x := startTared(t, "[web]\ntitle = \"Registry of the tests\"\n")
	const evil = `</dd><img src=x onerror=\"document.title='OWNED'\"><script>document.title='OWNED'</script>`
	config := `{"os":"linux","architecture":"amd64","created":"2026-01-02T03:04:05Z","config":{"Labels":{"` + evil + `":"` + evil + `","org.opencontainers.image.version":"1.0"},"Cmd":["/bin/server"]},` +
		`"rootfs":{"type":"layers","diff_ids":[]},"history":[{"created":"2026-01-02T03:04:05Z","created_by":"COPY . /app","comment":"` + evil + `"},{"created_by":"CMD [\"/bin/server\"]","empty_layer":true}]}`
	layer := strings.Repeat("layer", 100000)
	for _, b := range []string{config, layer, "{}"} {
		push(t, x, "POST", "/v2/team/app/blobs/uploads/?digest="+digest.FromString(b).String(), "application/octet-stream", b)
	}
	const manifestType = "application/vnd.oci.image.manifest.v1+json"
	descriptor := func(mediaType, body string) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, digest.FromString(body), len(body))
	}
	manifest := `{"schemaVersion":2,"mediaType":"` + manifestType + `","config":` + descriptor("application/vnd.oci.image.config.v1+json", config) +
		`,"layers":[` + descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer) + `],"annotations":{"org.example.note":"` + evil + `"}}`
	push(t, x, "PUT", "/v2/team/app/manifests/v1.0", manifestType, manifest)
	push(t, x, "PUT", "/v2/team/app/manifests/latest", manifestType, manifest)
	signature := `{"schemaVersion":2,"mediaType":"` + manifestType + `","artifactType":"application/x-signature","config":` + descriptor("application/vnd.oci.empty.v1+json", "{}") +
		`,"layers":[` + descriptor("application/vnd.oci.empty.v1+json", "{}") + `],"subject":` + descriptor(manifestType, manifest) + `,"annotations":{"by":"` + evil + `"}}`
	push(t, x, "PUT", "/v2/team/app/manifests/"+digest.FromString(signature).String(), manifestType, signature)

	dir := t.TempDir()
	for path, want := range map[string][]string{
		"/":                {`<a href="/r/team/app">team/app</a>`, "Registry of the tests"},
		"/r/team/app":      {`<a href="/r/team/app:latest">latest</a>`, "linux/amd64", "489 KiB"},
		"/r/team/app:v1.0": {"COPY . /app", "application/x-signature", "org.opencontainers.image.version", "/bin/server", "in 1 layer", "OWNED"},
		"/r/none":          {"Nothing here"},
	} {
		dom := browse(t, dir, "http://"+x.addr+path)
		for _, w := range want {
			if !strings.Contains(dom, w) {
				t.Errorf("%s: no %q in\n%s", path, w, dom)
			}
		}
		for _, bad := range []string{"<title>OWNED", "<img", "<script"} {
			if strings.Contains(dom, bad) {
				t.Errorf("%s: %q in\n%s", path, bad, dom)
			}
		}
	}
	if shots := os.Getenv("TARE_SCREENSHOTS"); shots != "" { // for people to look at
		for name, path := range map[string]string{"repositories": "/", "tags": "/r/team/app", "image": "/r/team/app:v1.0"} {
			browse(t, dir, "http://"+x.addr+path, "--window-size=1100,1600", "--hide-scrollbars", "--screenshot="+filepath.Join(shots, name+".png"))
			browse(t, dir, "http://"+x.addr+path, "--window-size=500,1600", "--hide-scrollbars", "--force-dark-mode", "--blink-settings=preferredColorScheme=0", "--screenshot="+filepath.Join(shots, name+"-dark.png"))
		}
	}
}
