package registry

import (
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bucket starts an S3 server with an empty bucket, and returns what a configuration says about it.
func bucket(t *testing.T) string {
	t.Helper()
	bin, err := exec.LookPath("versitygw")
	if err != nil {
		if bin, err = filepath.Abs("../../.cache/bin/versitygw"); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(bin); err != nil {
			t.Skip("there is no S3 server: scripts/peers.sh versitygw")
		}
	}
	dir := t.TempDir()
	for _, d := range []string{"data/registry", "sidecar"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	cmd := exec.Command(bin, "--access", "access", "--secret", topSecret+"s3", "--port", addr, "--quiet", "posix", "--sidecar", filepath.Join(dir, "sidecar"), filepath.Join(dir, "data"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal("versitygw does not answer")
		}
	}
	return fmt.Sprintf("[s3]\nendpoint = \"http://%s\"\nbucket = \"registry\"\nprefix = \"r\"\naccess-key = \"access\"\nsecret-key = \"%ss3\"\n", addr, topSecret)
}

// TestConformanceS3 runs the conformance tool against a registry in an object store. With redirects, which the specification
// allows, the last answer is the store's, and the tool misses Docker-Content-Digest in it, which a store cannot send; that it may
// say, and nothing else.
func TestConformanceS3(t *testing.T) {
	tool := conformance(t)
	for _, redirect := range []string{"", "redirect = true\n"} {
		results := t.TempDir()
		cmd := exec.Command(tool)
		cmd.Env = append(os.Environ(), "OCI_REGISTRY="+startTared(t, bucket(t)+redirect).addr, "OCI_TLS=disabled", "OCI_VERSION=dev", "OCI_DATA_SPARSE=true",
			"OCI_REPO1=conformance/one", "OCI_REPO2=conformance/two", "OCI_RESULTS_DIR="+results)
		out, err := cmd.CombinedOutput()
		if redirect != "" {
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, `msg="failed test"`) && !strings.Contains(line, `error="registry did not return a Docker-Content-Digest header"`) {
					t.Errorf("with redirects: %s", line)
				}
			}
		} else if err != nil {
			t.Errorf("conformance: %v\n%s", err, failures(string(out)))
		}
		data, err := os.ReadFile(results + "/junit.xml")
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Tests    int `xml:"tests,attr"`
			Failures int `xml:"failures,attr"`
			Errors   int `xml:"errors,attr"`
			Skipped  int `xml:"skipped,attr"`
		}
		if err := xml.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		if t.Logf("%q: %+v", redirect, got); got.Tests < 1000 || got.Errors > 0 || redirect == "" && got.Failures+got.Skipped > 0 {
			t.Errorf("%q: %+v", redirect, got)
		}
	}
}

// TestTwoServersOneBucket: two processes have one bucket; what is pushed to one is pulled from the other, by a signed address of
// the store that has nothing of the registry's secrets.
func TestTwoServersOneBucket(t *testing.T) {
	config := bucket(t) + "redirect = true\nredirect-expiry = \"1m\"\n"
	one, two := startTared(t, config), startTared(t, config)
	const digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" // of hello
	push(t, one, "POST", "/v2/a/blobs/uploads/?digest="+digest, "application/octet-stream", "hello")
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	r, err := client.Get("http://" + two.addr + "/v2/a/blobs/" + digest)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	to := r.Header.Get("Location")
	if r.StatusCode != 307 || !strings.Contains(to, "X-Amz-Expires=60") || strings.Contains(to, topSecret) {
		t.Errorf("%s %s", r.Status, to)
	}
	if r, err = http.Get("http://" + two.addr + "/v2/a/blobs/" + digest); err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if body, err := io.ReadAll(r.Body); err != nil || string(body) != "hello" {
		t.Errorf("%q, %v", body, err)
	}
}
