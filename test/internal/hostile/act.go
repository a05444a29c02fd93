package hostile

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"time"
)

// Status answers with a status and headers, pairs of name and value, and an error document.
func Status(code int, headers ...string) Act {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		set(w, headers)
		w.WriteHeader(code)
		w.Write([]byte(`{"errors":[{"code":"UNKNOWN","message":"as the test wants it"}]}`))
	}
}

// set sets headers; an empty value takes one away, also one that net/http would add.
func set(w http.ResponseWriter, headers []string) {
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i+1] == "" {
			w.Header()[http.CanonicalHeaderKey(headers[i])] = nil
		} else {
			w.Header().Set(headers[i], headers[i+1])
		}
	}
}

// Redirect sends the client to another address.
func Redirect(code int, to string) Act { return Status(code, "Location", to) }

// Header answers honestly but for headers, pairs of name and value; an empty value takes a header away.
func Header(headers ...string) Act {
	return func(w http.ResponseWriter, r *http.Request, honest http.Handler) {
		rec := ask(w, r, honest)
		set(w, headers)
		w.WriteHeader(rec.Code)
		w.Write(rec.Body.Bytes())
	}
}

// ask asks the honest registry and copies its headers to w.
func ask(w http.ResponseWriter, r *http.Request, honest http.Handler) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	honest.ServeHTTP(rec, r)
	for name, values := range rec.Header() {
		w.Header()[name] = values
	}
	if r.Method != http.MethodHead && rec.Code != http.StatusNoContent {
		w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
	}
	return rec
}

// Body answers with the honest status and headers, but for the length and those given, and another body.
func Body(body []byte, headers ...string) Act {
	return func(w http.ResponseWriter, r *http.Request, honest http.Handler) {
		rec := ask(w, r, honest)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		set(w, headers)
		w.WriteHeader(rec.Code)
		w.Write(body)
	}
}

// Drop breaks the connection without an answer. With done the request has been honoured before.
func Drop(done bool) Act {
	return func(_ http.ResponseWriter, r *http.Request, honest http.Handler) {
		if done {
			honest.ServeHTTP(httptest.NewRecorder(), r)
		}
		panic(http.ErrAbortHandler)
	}
}

// Truncate answers honestly and breaks the connection after so many bytes of the body.
func Truncate(n int) Act {
	return func(w http.ResponseWriter, r *http.Request, honest http.Handler) {
		send(w, ask(w, r, honest), n)
		panic(http.ErrAbortHandler)
	}
}

// send sends the first bytes of an answer.
func send(w http.ResponseWriter, rec *httptest.ResponseRecorder, n int) {
	w.WriteHeader(rec.Code)
	w.Write(rec.Body.Bytes()[:min(n, rec.Body.Len())])
	w.(http.Flusher).Flush()
}

// TakePart reads only so many bytes of the request's body, lets the registry honour them, and breaks the connection.
func TakePart(n int64) Act {
	return func(_ http.ResponseWriter, r *http.Request, honest http.Handler) {
		r.Body = http.MaxBytesReader(nil, r.Body, n)
		honest.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}
}

// Endless answers with a body that never ends, of which begin is sent once and again repeatedly.
func Endless(begin, again string, headers ...string) Act {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		set(w, headers)
		if _, err := w.Write([]byte(begin)); err != nil {
			return
		}
		for r.Context().Err() == nil {
			if _, err := w.Write([]byte(again)); err != nil {
				return
			}
		}
	}
}

// Stall sends the honest head and the first bytes of the body, and then nothing until the client gives up.
func Stall(n int) Act {
	return func(w http.ResponseWriter, r *http.Request, honest http.Handler) {
		send(w, ask(w, r, honest), n)
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
}

// Drip answers honestly, one byte at a time, with pauses.
func Drip(pause time.Duration) Act {
	return func(w http.ResponseWriter, r *http.Request, honest http.Handler) {
		rec := ask(w, r, honest)
		w.WriteHeader(rec.Code)
		for _, b := range rec.Body.Bytes() {
			w.Write([]byte{b})
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(pause):
			}
		}
	}
}

// Silence answers nothing until the client gives up.
func Silence() Act {
	return func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
		io.Copy(io.Discard, r.Body) // net/http notices that a client is gone only behind the body
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
}
