package observe

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"
)

// serveStreams starts a server that speaks HTTP/2.
func serveStreams(t *testing.T, stall time.Duration, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(New(Options{Stall: stall}).Wrap(h))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// drip yields a byte at a time, and takes its time.
type drip struct {
	left int
	wait time.Duration
}

func (d *drip) Read(p []byte) (int, error) {
	if d.left == 0 {
		return 0, io.EOF
	}
	time.Sleep(d.wait)
	d.left--
	p[0] = 'x'
	return 1, nil
}

// TestStreams: over HTTP/2, too, a slow transfer may take any time, and so may work between reading and writing.
func TestStreams(t *testing.T) {
	const stall = time.Second
	t.Parallel()
	answer := bytes.Repeat([]byte("y"), 4<<20)
	s := serveStreams(t, stall, func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("it speaks %s", r.Proto)
		}
		n, err := io.Copy(io.Discard, r.Body)
		if n != 20 || err != nil {
			t.Errorf("received %d, %v", n, err)
		}
		time.Sleep(3 * stall / 2)
		if err := r.Context().Err(); err != nil {
			t.Errorf("the request has ended: %v", err)
		}
		_, _ = w.Write(answer)
	})
	r, err := s.Client().Post(s.URL, "text/plain", &drip{left: 20, wait: stall / 10})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	got := make([]byte, 0, len(answer))
	for part := make([]byte, 1<<20); len(got) < len(answer); time.Sleep(stall / 2) { // a client that is slow
		n, err := io.ReadFull(r.Body, part)
		if got = append(got, part[:n]...); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, answer) {
		t.Error("the answer is another")
	}
}

// TestStreamsThatStandStill: who sends or takes nothing is cut off.
func TestStreamsThatStandStill(t *testing.T) {
	t.Parallel()
	result := make(chan error, 2)
	s := serveStreams(t, time.Second, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_, err := io.Copy(io.Discard, r.Body)
			result <- err
			return
		}
		var err error
		for range 1 << 10 { // more than any window
			if _, err = w.Write(make([]byte, 1<<20)); err != nil {
				break
			}
		}
		result <- err
	})
	in, out := io.Pipe()
	defer out.Close()
	go func() {
		if r, err := s.Client().Post(s.URL, "text/plain", in); err == nil {
			r.Body.Close()
		}
	}()
	if err := <-result; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a client that sends nothing: %v", err)
	}
	r, err := s.Client().Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if err := <-result; err == nil {
		t.Error("a client that takes nothing gets everything")
	}
}
