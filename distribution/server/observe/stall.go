package observe

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"
)

// chunk is how many bytes the kernel sends by itself before the deadline moves. A client must take as many in the time that a
// transfer may stand still: 17 kB/s with a minute.
const chunk = 1 << 20

// deadline moves a deadline on while there is progress. It is moved in steps, as that costs more than a small write.
type deadline struct {
	set   func(time.Time) error
	moved time.Time
}

func (d *deadline) extend(now time.Time, stall time.Duration) {
	if stall > 0 && now.Sub(d.moved) >= stall/8 {
		d.moved = now
		_ = d.set(now.Add(stall)) // a writer of a test has no connection, and so no deadline
	}
}

// A connection of HTTP/1 has deadlines that only matter to a read or write that waits for its client. Those of a stream of HTTP/2
// end it when they pass, whatever it does: there they are set for the time of each read and write, and then taken away.

// writer notes status and length of an answer, and gives a client that takes nothing a deadline.
type writer struct {
	http.ResponseWriter
	control *http.ResponseController
	status  int
	n       int64
	stall   time.Duration
	now     func() time.Time
	until   deadline
	streams bool // HTTP/2
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *writer) extend() {
	if w.stall > 0 && !w.streams {
		w.until.set = w.control.SetWriteDeadline
		w.until.extend(w.now(), w.stall)
	}
}

func (w *writer) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.extend()
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(p []byte) (int, error) {
	w.extend()
	if w.streams && w.stall > 0 {
		_ = w.control.SetWriteDeadline(w.now().Add(w.stall))
		defer func() { _ = w.control.SetWriteDeadline(time.Time{}) }()
	}
	n, err := w.ResponseWriter.Write(p)
	w.n += int64(n)
	return n, err
}

// last gives what is still in a buffer when the handler ends a deadline.
func (w *writer) last() {
	if w.extend(); w.streams && w.stall > 0 {
		_ = w.control.SetWriteDeadline(w.now().Add(w.stall))
	}
}

// ReadFrom lets the kernel send a file, piece by piece, so that a deadline can be kept.
func (w *writer) ReadFrom(src io.Reader) (int64, error) {
	to, ok := w.ResponseWriter.(io.ReaderFrom)
	if !ok {
		return io.Copy(struct{ io.Writer }{w}, src)
	}
	limit := &io.LimitedReader{R: src, N: 1<<63 - 1}
	if l, ok := src.(*io.LimitedReader); ok {
		limit = l // the kernel looks for a file through one of them only
	}
	var total int64
	for limit.N > 0 {
		w.extend()
		part := &io.LimitedReader{R: limit.R, N: min(limit.N, chunk)}
		n, err := to.ReadFrom(part)
		limit.N -= n
		total += n
		w.n += n
		if err != nil || part.N > 0 {
			return total, err
		}
	}
	return total, nil
}

// reader counts the bytes of a request, and gives a client that sends nothing a deadline.
type reader struct {
	io.ReadCloser
	control *http.ResponseController
	n       int64
	stall   time.Duration
	now     func() time.Time
	until   deadline
	over    bool
	streams bool // HTTP/2
}

func (r *reader) Read(p []byte) (int, error) {
	if r.streams && r.stall > 0 {
		return r.readStream(p)
	}
	if r.stall > 0 && !r.over {
		r.until.set = r.control.SetReadDeadline
		r.until.extend(r.now(), r.stall)
	}
	n, err := r.ReadCloser.Read(p)
	r.n += int64(n)
	if err != nil && r.stall > 0 && !r.over && !errors.Is(err, os.ErrDeadlineExceeded) {
		// From here on net/http reads ahead to learn whether the client is still there. A deadline would look as if it were not.
		r.over = true
		_ = r.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

func (r *reader) readStream(p []byte) (int, error) {
	_ = r.control.SetReadDeadline(r.now().Add(r.stall))
	n, err := r.ReadCloser.Read(p)
	_ = r.control.SetReadDeadline(time.Time{})
	r.n += int64(n)
	return n, err
}
