package observe

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// lines is a log that can be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func answer(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	SetUser(r, "al ice\"\n")
	w.WriteHeader(http.StatusCreated)
	_, _ = io.WriteString(w, "hello")
}

const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// TestLogCVE_2025_48374: no line has a secret, whatever a client sends, and each request has one line.
func TestLogCVE_2025_48374(t *testing.T) {
	for _, common := range []bool{false, true} {
		log := &lines{}
		h := New(Options{Log: log, Common: common}).Wrap(http.HandlerFunc(answer))
		for _, target := range []string{"/v2/a/blobs/uploads/x?digest=" + digest + "&_state=TOPSECRET&x%0ay=TOPSECRET", "/token?password=TOPSECRET&scope=repository:a:pull", "/?TOPSECRET",
			"/a%0ab%22%1b[31m%E2%80%A8", "/v2/" + strings.Repeat("a", 5000)} {
			r := httptest.NewRequest("POST", target, strings.NewReader("TOPSECRET"))
			r.Header.Set("Authorization", "Bearer TOPSECRET")
			r.Header.Set("Cookie", "TOPSECRET")
			r.Header.Set("User-Agent", "x\"\n\x1b[31m"+strings.Repeat("u", 5000))
			h.ServeHTTP(httptest.NewRecorder(), r)
		}
		text := log.String()
		if n := strings.Count(text, "\n"); n != 5 || strings.Contains(text, "TOPSECRET") || strings.ContainsAny(text, "\x1b\u2028") || len(text) > 20_000 {
			t.Errorf("%d lines: %s", n, text)
		}
		first, _, _ := strings.Cut(text, "\n")
		if common {
			if want := `192.0.2.1 - al\x20ice\"\n [`; !strings.HasPrefix(first, want) || !strings.Contains(first, `] "POST /v2/a/blobs/uploads/x?digest=sha256%3A`) || !strings.Contains(first, ` 201 5 "-" "x\"\n\x1b`) {
				t.Errorf("common: %s", first)
			}
			continue
		}
		var e entry
		if err := json.Unmarshal([]byte(first), &e); err != nil || e.Status != 201 || e.Out != 5 || e.In != 9 || e.User != "al ice\"\n" || e.Method != "POST" || e.Remote != "192.0.2.1" ||
			e.Path != "/v2/a/blobs/uploads/x" || e.Query != "digest="+strings.ReplaceAll(digest, ":", "%3A")+"&(hidden)=2" {
			t.Errorf("JSON: %v %s", err, first)
		}
	}
}

func TestMetrics(t *testing.T) {
	o := New(Options{})
	h := o.Wrap(http.HandlerFunc(answer))
	for _, c := range [][2]string{{"GET", "/v2/"}, {"GET", "/v2/a/blobs/" + digest}, {"GET", "/v2/a/blobs/" + digest}, {"PROPFIND", "/v2/a/manifests/x"}, {"DELETE", "/v2/a/b/manifests/x"},
		{"PUT", "/v2/a/blobs/uploads/id"}, {"POST", "/v2/a/blobs/uploads/"}, {"GET", "/v2/a/tags/list"}, {"GET", "/v2/a/referrers/" + digest}, {"GET", "/v2/_catalog"}, {"GET", "/"},
		{"GET", "/r/a"}, {"GET", "/token"}, {"GET", "/v2/nonsense"}, {"GET", "/what/ever"}} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(c[0], c[1], strings.NewReader("12")))
	}
	o.Gauge(`tared_storage_bytes`, func() float64 { return 42 })
	o.Add(`tared_gc_runs_total`, 2)
	w := httptest.NewRecorder()
	o.MetricsHandler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	text := w.Body.String()
	for _, want := range []string{
		`tared_http_requests_total{route="base",method="GET",code="201"} 1`,
		`tared_http_requests_total{route="blob",method="GET",code="201"} 2`,
		`tared_http_requests_total{route="manifest",method="other",code="201"} 1`,
		`tared_http_requests_total{route="manifest",method="DELETE",code="201"} 1`,
		`tared_http_requests_total{route="upload",method="PUT",code="201"} 1`,
		`tared_http_requests_total{route="uploads",method="POST",code="201"} 1`,
		`tared_http_requests_total{route="tags",method="GET",code="201"} 1`,
		`tared_http_requests_total{route="referrers",method="GET",code="201"} 1`,
		`tared_http_requests_total{route="catalog",method="GET",code="201"} 1`,
		`tared_http_requests_total{route="pages",method="GET",code="201"} 2`,
		`tared_http_requests_total{route="token",method="GET",code="201"} 1`,
		`tared_http_requests_total{route="other",method="GET",code="201"} 2`,
		`tared_http_request_bytes_total 30`, `tared_http_response_bytes_total 75`, `tared_http_requests_under_way 0`,
		`tared_http_request_duration_seconds_count{route="blob"} 2`, `tared_http_request_duration_seconds_bucket{route="blob",le="+Inf"} 2`,
		`# TYPE tared_http_request_duration_seconds histogram`, `tared_storage_bytes 42`, `tared_gc_runs_total 2`, "process_open_fds",
	} {
		if !strings.Contains(text, want+"\n") && !strings.Contains(text, want+" ") {
			t.Errorf("no %s in\n%s", want, text[:min(len(text), 4000)])
		}
	}
	w = httptest.NewRecorder()
	o.MetricsHandler().ServeHTTP(w, httptest.NewRequest("POST", "/metrics", nil))
	if w.Code != 405 {
		t.Errorf("POST: %d", w.Code)
	}
}

func TestHistogramBuckets(t *testing.T) {
	m := newMeter()
	for _, d := range []time.Duration{-1, 0, time.Millisecond, 2 * time.Millisecond, time.Hour} {
		m.count(routePages, "GET", 200, 0, 0, d)
	}
	m.count(routePages, "GET", 7, 0, 0, 0)
	m.count(routePages, "GET", 9999, 0, 0, 0)
	var b strings.Builder
	m.set.WritePrometheus(&b)
	for _, want := range []string{`le="0.001"} 5`, `le="0.0025"} 6`, `le="300"} 6`, `le="+Inf"} 7`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
}

func TestHealth(t *testing.T) {
	var fail error
	asked, told := 0, 0
	now := time.Now()
	o := New(Options{Ready: func(context.Context) error { asked++; return fail }, Fault: func(error) { told++ }})
	o.now = func() time.Time { return now }
	h := o.Wrap(http.NotFoundHandler())
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Code, w.Body.String()
	}
	for range 3 {
		if code, _ := get(ReadyPath); code != 200 {
			t.Errorf("ready: %d", code)
		}
	}
	if fail = errors.New("TOPSECRET"); asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	now = now.Add(2 * readyFor)
	for range 3 {
		if code, text := get(ReadyPath); code != 503 || strings.Contains(text, "TOPSECRET") {
			t.Errorf("not ready: %d %s", code, text)
		}
	}
	if code, _ := get(LivePath); code != 200 || told != 1 || asked != 2 {
		t.Errorf("live: %d, told %d times", code, told)
	}
	fail, now = nil, now.Add(2*readyFor)
	o.End()
	if code, text := get(ReadyPath); code != 503 || !strings.Contains(text, "shutting down") {
		t.Errorf("at the end: %d %s", code, text)
	}
}

func TestTooMany(t *testing.T) {
	enter, leave := make(chan bool), make(chan bool)
	o := New(Options{Requests: 1})
	h := o.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { enter <- true; <-leave }))
	go h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/v2/", nil))
	<-enter
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/v2/", nil))
	if w.Code != 429 || w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), "TOOMANYREQUESTS") {
		t.Errorf("the second: %d %s", w.Code, w.Body)
	}
	w = httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", LivePath, nil))
	if w.Code != 200 {
		t.Errorf("health: %d", w.Code)
	}
	leave <- true
	go func() { <-enter; leave <- true }()
	for code := 429; code == 429; code = w.Code { // until the first has left
		w = httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/v2/", nil))
	}
}

func TestPanicIsCounted(t *testing.T) {
	log := &lines{}
	h := New(Options{Log: log, Requests: 1}).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	for range 2 {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic is swallowed")
				}
			}()
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		}()
	}
	if strings.Count(log.String(), `"status":500`) != 2 {
		t.Errorf("log: %s", log)
	}
}

// serve starts a server on loopback whose requests may stand still for a short time.
func serve(t *testing.T, stall time.Duration, h http.HandlerFunc) (addr string, log *lines) {
	t.Helper()
	log = &lines{}
	s := httptest.NewServer(New(Options{Stall: stall, Log: log}).Wrap(h))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), log
}

// TestSlowUpload: a client that sends nothing is cut off; one that is slow but goes on is not, however long it takes.
func TestSlowUpload(t *testing.T) {
	const stall = 2 * time.Second
	t.Parallel()
	result := make(chan error, 1)
	addr, _ := serve(t, stall, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		result <- err
	})
	dial := func() net.Conn {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n")
		return c
	}
	dial()
	if err := <-result; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a client that stands still: %v", err)
	}
	c := dial()
	for range 20 { // twice as long as it may stand still
		time.Sleep(stall / 10)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-result; err != nil {
		t.Errorf("a slow client: %v", err)
	}
}

// TestLongWork: after the body has come the server may take its time, and the connection is good for the next request.
func TestLongWork(t *testing.T) {
	const stall = time.Second
	t.Parallel()
	addr, _ := serve(t, stall, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Errorf("read: %v", err)
		}
		select {
		case <-r.Context().Done():
			t.Error("the request is cancelled while the client waits")
		case <-time.After(2 * stall):
		}
		_, _ = io.WriteString(w, "done")
	})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for range 3 {
		fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(r.Body); err != nil || string(body) != "done" {
			t.Fatalf("%q, %v", body, err)
		}
	}
}

// TestSlowDownload: a client that takes nothing is cut off, in the middle of a file that the kernel sends.
func TestSlowDownload(t *testing.T) {
	t.Parallel()
	const size = 256 << 20 // more than fits into the buffers of both ends
	file := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	addr, log := serve(t, time.Second, func(w http.ResponseWriter, _ *http.Request) {
		f, err := os.Open(file)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		w.Header().Set("Content-Length", fmt.Sprint(size))
		_, err = io.Copy(w, f)
		result <- err
	})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if err := <-result; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a client that stands still: %v", err)
	}
	r, err := http.Get("http://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if n, err := io.Copy(io.Discard, r.Body); err != nil || n != size {
		t.Errorf("whole: %d, %v", n, err)
	}
	if err := <-result; err != nil {
		t.Errorf("whole: %v", err)
	}
	for !strings.Contains(log.String(), fmt.Sprintf(`"out":%d`, size)) {
		time.Sleep(time.Millisecond) // the line is written after the answer
	}
}

func TestReadFromParts(t *testing.T) {
	for _, size := range []int64{0, 1, chunk - 1, chunk, chunk + 1, 3 * chunk} {
		for _, limit := range []int64{-1, 0, chunk, 2*chunk + 5} {
			var b into
			w := &writer{ResponseWriter: &b}
			var src io.Reader = io.LimitReader(endless{}, size)
			want := size
			if limit >= 0 {
				src, want = io.LimitReader(src, limit), min(size, limit)
			}
			if n, err := w.ReadFrom(src); n != want || err != nil || b.n != want || w.n != want {
				t.Errorf("%d bytes, limit %d: %d, %v, sent %d", size, limit, n, err, b.n)
			}
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

type into struct {
	http.ResponseWriter
	n int64
}

func (i *into) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(io.Discard, r)
	i.n += n
	return n, err
}
