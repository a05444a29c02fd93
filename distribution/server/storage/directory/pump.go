package directory

import (
	"errors"
	"hash"
	"io"
	"os"
	"sync"
)

// Blobs pass through buffers of this size, up to bufferCount of them for one upload.
const (
	bufferSize  = 256 << 10
	bufferCount = 4
)

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

// pump writes what r yields to f and h, and returns how many bytes both have got. Of more than a buffer one goroutine receives
// and writes while another hashes: either takes about as long as the other.
func pump(f *os.File, h hash.Hash, r io.Reader) (n int64, err error) {
	first := buffers.Get().(*[]byte)
	length, err := fill(r, *first)
	if err == nil {
		return pumpBoth(f, h, r, first)
	}
	defer buffers.Put(first)
	written, wrong := f.Write((*first)[:length])
	h.Write((*first)[:written])
	return int64(written), outcome(err, wrong)
}

// fill reads until the buffer is full or r has an error, which is returned as it is.
func fill(r io.Reader, buffer []byte) (n int, err error) {
	for n < len(buffer) && err == nil {
		var m int
		m, err = r.Read(buffer[n:])
		n += m
	}
	return n, err
}

// outcome is the error of a pump: that of writing, or that of reading if it is not the end.
func outcome(read, written error) error {
	if written != nil {
		return written
	}
	if errors.Is(read, io.EOF) {
		return nil
	}
	return read
}

// part is the filled part of a buffer.
type part struct {
	buffer *[]byte
	length int
}

// pumpBoth is pump once the first buffer is full.
func pumpBoth(f *os.File, h hash.Hash, r io.Reader, first *[]byte) (n int64, err error) {
	free, toHash := make(chan *[]byte, bufferCount), make(chan part, bufferCount)
	hashed := make(chan struct{})
	go func() {
		defer close(hashed)
		for p := range toHash {
			h.Write((*p.buffer)[:p.length])
			free <- p.buffer
		}
	}()
	for range bufferCount - 1 {
		free <- buffers.Get().(*[]byte)
	}
	var wrong error
	buffer, length := first, len(*first)
	for {
		var written int
		written, wrong = f.Write((*buffer)[:length])
		n += int64(written)
		toHash <- part{buffer, written} // after the write: what could not be written is not hashed
		if wrong != nil || err != nil {
			break
		}
		buffer = <-free
		length, err = fill(r, *buffer)
	}
	close(toHash)
	<-hashed
	close(free)
	for b := range free {
		buffers.Put(b)
	}
	return n, outcome(err, wrong)
}
