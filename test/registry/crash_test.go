package registry

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// acknowledged are pushes that the registry has answered with 201.
type acknowledged struct {
	mu        sync.Mutex
	manifests map[string]string // tag to the layer's content
}

// keepPushing pushes images of one layer, half of them in chunks, until the registry does not answer.
func keepPushing(addr string, pusher int, done *acknowledged) {
	for i := 0; ; i++ {
		layer := strings.Repeat(fmt.Sprintf("%d-%d-%d ", pusher, i, rand.Int()), 1+rand.IntN(20000))
		d := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(layer)))
		if !pushLayer(addr, d, layer, i%2 == 0) {
			return
		}
		tag := fmt.Sprintf("t%d-%d", pusher, i)
		manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"a/b","digest":"%s","size":%d},"layers":[]}`, d, len(layer))
		if send("PUT", "http://"+addr+"/v2/crash/manifests/"+tag, manifest, 201) == nil {
			return
		}
		done.mu.Lock()
		done.manifests[tag] = layer
		done.mu.Unlock()
	}
}

func pushLayer(addr, d, layer string, chunks bool) bool {
	a := send("POST", "http://"+addr+"/v2/crash/blobs/uploads/", "", 202)
	if a == nil {
		return false
	}
	location, rest := a.Header.Get("Location"), layer
	if chunks {
		half := len(layer) / 2
		if a = send("PATCH", "http://"+addr+location, layer[:half], 202); a == nil {
			return false
		}
		location, rest = a.Header.Get("Location"), layer[half:]
	}
	return send("PUT", "http://"+addr+location+"?digest="+d, rest, 201) != nil
}

// send makes a request; nil if the answer has another status, or there is none.
func send(method, url, body string, status int) *http.Response {
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return nil
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil
	}
	defer a.Body.Close()
	if _, err := io.Copy(io.Discard, a.Body); err != nil || a.StatusCode != status {
		return nil
	}
	return a
}

// TestKill kills the registry while images are pushed, many times over the same directory. What it has acknowledged is there
// afterwards, and what is there is whole.
func TestKill(t *testing.T) {
	done := &acknowledged{manifests: map[string]string{}}
	x := startTared(t, "")
	for range 15 {
		var pushers sync.WaitGroup
		for p := range 3 {
			pushers.Go(func() { keepPushing(x.addr, rand.IntN(1<<30)*3+p, done) })
		}
		time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond) // the moment is chance
		if err := x.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-x.done
		pushers.Wait()
		x = &running{dir: x.dir, said: &said{}, done: make(chan error, 1)}
		x.start(t)
	}
	for tag, layer := range done.manifests {
		if status, body := x.get(t, "/v2/crash/manifests/"+tag, ""); status != 200 || !strings.Contains(body, fmt.Sprintf(`"size":%d`, len(layer))) {
			t.Errorf("manifest %s was acknowledged: %d %s", tag, status, body)
		}
		d := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(layer)))
		if status, body := x.get(t, "/v2/crash/blobs/"+d, ""); status != 200 || body != layer {
			t.Errorf("blob %s was acknowledged: %d, %d of %d bytes", d, status, len(body), len(layer))
		}
	}
	if len(done.manifests) == 0 {
		t.Error("no push was ever finished")
	}
	t.Logf("%d images", len(done.manifests))
	checkTags(t, x)
}

// checkTags pulls whatever has a tag, acknowledged or not.
func checkTags(t *testing.T, x *running) {
	t.Helper()
	_, list := x.get(t, "/v2/crash/tags/list", "")
	_, tags, _ := strings.Cut(list, `"tags":[`)
	for tag := range strings.SplitSeq(strings.Trim(tags, "]}"), ",") {
		status, manifest := x.get(t, "/v2/crash/manifests/"+strings.Trim(tag, `"`), "")
		_, rest, _ := strings.Cut(manifest, `"digest":"`)
		d, _, _ := strings.Cut(rest, `"`)
		blobStatus, layer := x.get(t, "/v2/crash/blobs/"+d, "")
		if status != 200 || blobStatus != 200 || d != fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(layer))) {
			t.Errorf("tag %s: manifest %d, blob %d", tag, status, blobStatus)
		}
	}
}

// TestManyPulls has a thousand clients pull at once: the memory of the registry does not grow with them and the blob.
func TestManyPulls(t *testing.T) {
	const clients, size = 1000, 8 << 20
	x := startTared(t, "")
	d := x.push(t, "a", strings.Repeat("0123456789abcdef", size/16))
	release := make(chan struct{})
	var all, begun sync.WaitGroup
	all.Add(clients)
	begun.Add(clients)
	errs := make(chan error, clients)
	for range clients {
		go func() {
			defer all.Done()
			a, err := http.Get("http://" + x.addr + "/v2/a/blobs/" + d)
			begun.Done()
			if err != nil {
				errs <- err
				return
			}
			defer a.Body.Close()
			<-release // the registry has as much under way as the sockets take
			if n, err := io.Copy(io.Discard, a.Body); err != nil || n != size {
				errs <- fmt.Errorf("%d bytes: %w", n, err)
			}
		}()
	}
	begun.Wait()
	rss := residentMemory(t, x.Process.Pid)
	close(release)
	all.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	rss = max(rss, residentMemory(t, x.Process.Pid))
	t.Logf("%d MiB", rss>>20)
	// A connection costs its goroutine and two buffers of net/http, about 30 KiB.
	if rss > 160<<20 {
		t.Errorf("%d MiB of memory with %d clients", rss>>20, clients)
	}
}

func residentMemory(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(status, []byte("VmHWM:"))
	var kib int64
	if _, err := fmt.Sscan(string(rest), &kib); err != nil {
		t.Fatalf("VmHWM: %v", err)
	}
	return kib << 10
}
