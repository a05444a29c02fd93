package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	rowGet      = "GET of a blob"
	rowPut      = "push of a blob"
	rowManifest = "GET of a manifest"
)

// connections that ask for the manifest at once, and for how long.
const (
	connections = 16
	askFor      = 2 * time.Second
)

// site is one of the servers that are compared: where the same bytes are.
type site struct {
	name           string
	blob, manifest string // URLs
	push           func(ctx context.Context, d digest.Digest, data []byte) error
}

// servers compares the registry with nginx.
func (w *world) servers(ctx context.Context) error {
	blob := make([]byte, w.o.blob<<20)
	rand.Read(blob)
	config, manifest, err := new(image).documents()
	if err != nil {
		return err
	}
	ours, err := w.ourSite(ctx, blob, config, manifest)
	if err != nil {
		return err
	}
	sites := []site{ours}
	if _, err := exec.LookPath("nginx"); err != nil {
		w.skipped = append(w.skipped, "the registry against nginx: nginx is not there")
	} else {
		nginx, err := w.nginxSite(ctx, blob, manifest)
		if err != nil {
			return err
		}
		sites = append(sites, nginx)
	}
	var actions []action
	for _, s := range sites {
		actions = append(actions,
			action{row: rowGet, who: s.name, once: func() (float64, error) { return get(ctx, s.blob, int64(len(blob))) }},
			w.pushAction(ctx, s),
			action{row: rowManifest, who: s.name, once: func() (float64, error) { return perSecond(ctx, s.manifest, manifest) }})
	}
	return w.interleave(ctx, actions)
}

// pushAction pushes a blob that is new every time.
func (w *world) pushAction(ctx context.Context, s site) action {
	blob := make([]byte, w.o.blob<<20)
	var d digest.Digest
	return action{row: rowPut, who: s.name,
		prepare: func() error {
			rand.Read(blob)
			d = digest.FromBytes(blob)
			return nil
		},
		once: func() (float64, error) {
			start := time.Now()
			err := s.push(ctx, d, blob)
			return time.Since(start).Seconds(), err
		}}
}

func (w *world) ourSite(ctx context.Context, blob, config, manifest []byte) (site, error) {
	address, _, err := w.registry(ctx)
	if err != nil {
		return site{}, err
	}
	base := "http://" + address + "/v2/bench/"
	d := digest.FromBytes(blob)
	for _, b := range [][]byte{blob, config} {
		if err := pushBlob(ctx, base, digest.FromBytes(b), bytes.NewReader(b), int64(len(b))); err != nil {
			return site{}, err
		}
	}
	if _, err := put(ctx, "PUT", base+"manifests/1", v1.MediaTypeImageManifest, bytes.NewReader(manifest), int64(len(manifest)), 201); err != nil {
		return site{}, err
	}
	return site{name: "tared", blob: base + "blobs/" + d.String(), manifest: base + "manifests/" + digest.FromBytes(manifest).String(),
		push: func(ctx context.Context, d digest.Digest, data []byte) error {
			return pushBlob(ctx, base, d, bytes.NewReader(data), int64(len(data)))
		}}, nil
}

func (w *world) nginxSite(ctx context.Context, blob, manifest []byte) (site, error) {
	dir := w.fresh("nginx")
	address, err := port()
	if err != nil {
		return site{}, err
	}
	for _, d := range []string{"files", "put", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return site{}, err
		}
	}
	for name, data := range map[string][]byte{"blob": blob, "manifest": manifest} {
		if err := os.WriteFile(filepath.Join(dir, "files", name), data, 0o644); err != nil {
			return site{}, err
		}
	}
	config := fmt.Sprintf(`user root; worker_processes auto; pid %[1]s/pid; error_log %[1]s/error.log; daemon off;
events { worker_connections 4096; }
http { access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; client_max_body_size 0; open_file_cache max=100;
client_body_temp_path %[1]s/tmp; server { listen %[2]s; root %[1]s/files; location /put/ { alias %[1]s/put/; dav_methods PUT; } } }
`, dir, address)
	if err := os.WriteFile(dir+"/nginx.conf", []byte(config), 0o644); err != nil {
		return site{}, err
	}
	if _, _, err := w.start(ctx, address, nil, "nginx", "-c", dir+"/nginx.conf", "-p", dir, "-e", dir+"/error.log"); err != nil {
		return site{}, err
	}
	base := "http://" + address
	return site{name: "nginx", blob: base + "/blob", manifest: base + "/manifest",
		push: func(ctx context.Context, d digest.Digest, data []byte) error {
			_, err := put(ctx, "PUT", base+"/put/"+d.Encoded(), "", bytes.NewReader(data), int64(len(data)), 201)
			return err
		}}, nil
}

// get reads what is at the URL and returns the seconds that it took. It reads the socket itself after the head, so that the
// client costs next to nothing.
func get(ctx context.Context, url string, size int64) (float64, error) {
	host, path, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	start := time.Now()
	conn, err := net.Dial("tcp", host)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	fmt.Fprintf(conn, "GET /%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host)
	buf := make([]byte, 1<<20)
	var n int64
	head := []byte{}
	for {
		k, err := conn.Read(buf)
		if len(head) < 4096 {
			head = append(head, buf[:min(k, 4096)]...)
		}
		n += int64(k)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	took := time.Since(start).Seconds()
	end := bytes.Index(head, []byte("\r\n\r\n"))
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200")) || n-int64(end)-4 != size {
		return 0, fmt.Errorf("GET %s: %d bytes, %.200q", url, n, head)
	}
	return took, nil
}

// perSecond returns how many requests for the manifest are answered in a second.
func perSecond(ctx context.Context, url string, want []byte) (float64, error) {
	host, path, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	request := fmt.Sprintf("GET /%s HTTP/1.1\r\nHost: %s\r\nAccept: %s\r\n\r\n", path, host, v1.MediaTypeImageManifest)
	var count atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, connections)
	start := time.Now()
	for range connections {
		wg.Go(func() {
			n, err := askOn(host, request, want, start.Add(askFor))
			count.Add(n)
			if err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	took := time.Since(start).Seconds()
	select {
	case err := <-errs:
		return 0, fmt.Errorf("GET %s: %w", url, err)
	default:
	}
	return float64(count.Load()) / took, nil
}

// askOn asks over one connection until the end, by the simplest client there is: the answer's end is known by its length.
func askOn(host, request string, want []byte, end time.Time) (n int64, err error) {
	conn, err := net.Dial("tcp", host)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	buf := make([]byte, 64<<10)
	length := 0 // of one whole answer
	for time.Now().Before(end) {
		if _, err := io.WriteString(conn, request); err != nil {
			return n, err
		}
		have := 0
		for length == 0 || have < length {
			k, err := conn.Read(buf[have:])
			if err != nil {
				return n, err
			}
			have += k
			if at := bytes.Index(buf[:have], []byte("\r\n\r\n")); length == 0 && at > 0 {
				length = at + 4 + len(want)
			}
		}
		if have != length || !bytes.HasPrefix(buf, []byte("HTTP/1.1 200")) || !bytes.HasSuffix(buf[:have], want) {
			return n, fmt.Errorf("answer %.300q", buf[:have])
		}
		n++
	}
	return n, nil
}

// serveMemory notes what 1000 pulls at once cost in memory, and what a page of 10 000 tags costs at both ends.
func (w *world) serveMemory(ctx context.Context) error {
	address, pid, err := w.registry(ctx)
	if err != nil {
		return err
	}
	base := "http://" + address + "/v2/bench/"
	blob := make([]byte, 64<<20) // more than the kernel buffers
	rand.Read(blob)
	d := digest.FromBytes(blob)
	if err := pushBlob(ctx, base, d, bytes.NewReader(blob), int64(len(blob))); err != nil {
		return err
	}
	for _, n := range []int{10, 1000} {
		if err := hold(ctx, base+"blobs/"+d.String(), n); err != nil {
			return err
		}
		peak, err := status(pid, "VmHWM")
		if err != nil {
			return err
		}
		w.notes = append(w.notes, fmt.Sprintf("Resident memory of tared at its peak, after %d pulls of 64 MiB at once: %.1f MiB.", n, float64(peak)/(1<<20)))
	}
	return w.tagPages(ctx, base)
}

// hold makes n requests whose answers nobody reads, and ends them when all are under way.
func hold(ctx context.Context, url string, n int) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range n {
		req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
	}
	return nil
}

// tagPages fills a repository with 10 000 tags and times pages of 100 at the beginning and at the end of the list.
func (w *world) tagPages(ctx context.Context, base string) error {
	img := image{}
	config, manifest, err := img.documents()
	if err != nil {
		return err
	}
	if err := pushBlob(ctx, base, digest.FromBytes(config), bytes.NewReader(config), int64(len(config))); err != nil {
		return err
	}
	for i := range 10000 {
		url := fmt.Sprintf("%smanifests/tag-%05d", base, i)
		if _, err := put(ctx, "PUT", url, v1.MediaTypeImageManifest, bytes.NewReader(manifest), int64(len(manifest)), 201); err != nil {
			return err
		}
	}
	for _, last := range []string{"tag-00000", "tag-05000", "tag-09800"} {
		url := base + "tags/list?n=100&last=" + last
		start := time.Now()
		const times = 200
		for range times {
			if _, err := put(ctx, "GET", url, "", nil, 0, 200); err != nil {
				return err
			}
		}
		w.notes = append(w.notes, fmt.Sprintf("A page of 100 of 10 000 tags after %s: %.2f ms.", last, time.Since(start).Seconds()*1000/times))
	}
	return nil
}
