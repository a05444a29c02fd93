package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/auth"
	"github.com/tare-oci/tare/distribution/protocol"
	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/reference"
)

// progressUnit is how many bytes make a transfer that broke count as one that goes on, so that it may break again as often.
const progressUnit = 1 << 20

// Fetch implements content.Source. Data that d embeds is taken instead of a request if it is what the digest says. A manifest is
// verified already. A blob's reader verifies the size, and continues where it was when the connection breaks; the digest is
// for the caller (content.Verify), who may have to hash what comes from elsewhere, too. A blob that is not there and has
// urls is fetched from these, without any credential (CVE-2020-15157).
func (r *Repository) Fetch(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, error) {
	if err := reference.CheckVerifiable(d.Digest); err != nil {
		return nil, err
	}
	if offset < 0 || offset > d.Size {
		return nil, fmt.Errorf("get %s: offset %d is outside of its %d bytes", d.Digest, offset, d.Size)
	}
	if len(d.Data) > 0 && int64(len(d.Data)) == d.Size && d.Digest.Algorithm().FromBytes(d.Data) == d.Digest {
		return io.NopCloser(bytes.NewReader(d.Data[offset:])), nil
	}
	if _, resolved := r.remembered(d); resolved || isDocument(d.MediaType) { // what was resolved may be of an unknown type
		doc, err := r.get(ctx, d.Digest.String(), d)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(doc.raw[offset:])), nil
	}
	if offset == d.Size && d.Size > 0 {
		return http.NoBody, nil
	}
	req := r.request("get blob "+d.Digest.String(), http.MethodGet, r.c.url(protocol.BlobPath(r.name, d.Digest)), "pull")
	b := &blobReader{c: r.c, ctx: ctx, req: req, size: d.Size, offset: offset}
	err := b.open()
	if errors.Is(err, content.ErrNotFound) && len(d.URLs) > 0 {
		return r.foreign(ctx, d, offset, err)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// foreign fetches a blob from the addresses in its descriptor. err is what the registry said.
func (r *Repository) foreign(ctx context.Context, d v1.Descriptor, offset int64, err error) (io.ReadCloser, error) {
	anonymous := &Client{opt: r.c.opt, base: r.c.base, warned: map[string]bool{}} // its origin is nobody's: nothing is sent with a credential
	anonymous.opt.Retry.Attempts = min(r.c.opt.Retry.Attempts, 3)
	anonymous.http = &http.Client{
		Transport:     &splitter{elsewhere: r.c.http.Transport.(*splitter).elsewhere},
		CheckRedirect: anonymous.checkRedirect,
	}
	for _, unsafe := range d.URLs[:min(len(d.URLs), 8)] {
		u, parseErr := url.Parse(unsafe)
		if parseErr == nil {
			parseErr = r.c.checkElsewhere(r.c.base, u)
		}
		if parseErr != nil {
			err = fmt.Errorf("%w; address %.200q of the layer: %w", err, unsafe, parseErr)
			continue
		}
		if anonymous.origin, parseErr = auth.OriginOf(u); parseErr != nil {
			return nil, parseErr
		}
		req := &request{op: "get foreign layer " + d.Digest.String(), method: http.MethodGet, url: u}
		b := &blobReader{c: anonymous, ctx: ctx, req: req, size: d.Size, offset: offset}
		openErr := b.open()
		if openErr == nil {
			return b, nil
		}
		err = fmt.Errorf("%w; %w", err, openErr)
	}
	return nil, err
}

// blobReader reads a blob, over as many connections as it needs.
type blobReader struct {
	c      *Client
	ctx    context.Context //nolint:containedctx // that of Fetch, for further requests
	req    *request
	size   int64
	offset int64 // of the next byte
	body   io.ReadCloser
	end    int64 // where body ends
	tries  int   // connections that broke since mark
	mark   int64 // offset from which on tries counts
	err    error
}

// open asks for the bytes from offset on.
func (b *blobReader) open() error {
	req := *b.req
	req.accept = []int{http.StatusOK}
	if b.offset > 0 {
		req.accept = append(req.accept, http.StatusPartialContent)
		req.header = http.Header{"Range": {protocol.FormatRange(b.offset)}}
	}
	resp, err := b.c.send(b.ctx, &req)
	if err != nil {
		return err
	}
	if err := b.begin(resp); err != nil {
		resp.Body.Close()
		return fmt.Errorf("%s: %w", b.req.op, err)
	}
	b.body = resp.Body
	return nil
}

// begin checks the head of an answer, and leaves its body at offset.
func (b *blobReader) begin(resp *http.Response) error {
	if resp.StatusCode == http.StatusPartialContent {
		got, total, err := protocol.ParseContentRange(resp.Header.Get("Content-Range"))
		switch {
		case err != nil:
			return &refusal{fmt.Errorf("partial answer: %w", err)}
		case got.First != b.offset || got.Last >= b.size || total >= 0 && total != b.size:
			return &refusal{fmt.Errorf("asked for bytes from %d on of %d, got %s of %d", b.offset, b.size, got, total)}
		case resp.ContentLength >= 0 && resp.ContentLength != got.Length():
			return &refusal{fmt.Errorf("answer has %d bytes, its range %s", resp.ContentLength, got)}
		}
		b.end = got.Last + 1
		return nil
	}
	if resp.ContentLength >= 0 && resp.ContentLength != b.size {
		return &refusal{fmt.Errorf("the registry has %d bytes, expected are %d", resp.ContentLength, b.size)}
	}
	b.end = b.size
	// A server that knows no ranges sends all of it again.
	if n, err := io.CopyN(io.Discard, resp.Body, b.offset); err != nil {
		return fmt.Errorf("skip %d of %d bytes: %w", n, b.offset, noEOF(err))
	}
	return nil
}

// Read implements io.Reader.
func (b *blobReader) Read(p []byte) (int, error) {
	for {
		if b.err != nil {
			return 0, b.err
		}
		if len(p) == 0 {
			return 0, nil
		}
		if b.offset == b.size {
			b.err = b.finish()
			continue
		}
		if b.body == nil {
			if err := b.again(nil); err != nil {
				b.err = err
				continue
			}
		}
		n, err := b.body.Read(p[:min(int64(len(p)), b.end-b.offset)])
		b.offset += int64(n)
		switch {
		case err == nil && b.offset < b.end, b.offset == b.size:
		case b.offset == b.end: // of a part; the next one is to be asked for
			b.close()
		default:
			b.close()
			b.err = b.again(fmt.Errorf("%s: broke after %d of %d bytes: %w", b.req.op, b.offset, b.size, noEOF(err)))
		}
		if n > 0 {
			return n, nil
		}
	}
}

// Seek implements io.Seeker: a push to another registry that broke reads its source again. Positions are those of the blob,
// whatever offset the reader began with.
func (b *blobReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += b.offset
	case io.SeekEnd:
		offset += b.size
	}
	if offset < 0 || offset > b.size {
		return 0, fmt.Errorf("%s: seek to %d of %d bytes", b.req.op, offset, b.size)
	}
	if b.err != nil && b.err != io.EOF {
		return 0, b.err
	}
	if offset != b.offset {
		b.close()
		b.offset, b.mark, b.tries, b.err = offset, offset, 0, nil
	}
	return offset, nil
}

// finish looks whether the body, if there is one, ends where the blob does.
func (b *blobReader) finish() error {
	if b.body == nil {
		return io.EOF
	}
	var more [1]byte
	if n, _ := io.ReadFull(b.body, more[:]); n > 0 { // an error after all of the blob changes nothing
		return fmt.Errorf("%s: the answer goes on after its %d bytes", b.req.op, b.size)
	}
	return io.EOF
}

// again opens the blob at offset, after err broke the last connection (nil: it has served its part), as often as that makes
// sense.
func (b *blobReader) again(err error) error {
	if b.offset-b.mark >= progressUnit {
		b.mark, b.tries = b.offset, 0
	}
	for {
		b.tries++
		if err != nil && !b.c.passes(err) || b.tries >= max(b.c.opt.Retry.Attempts, 2) {
			if err == nil {
				err = fmt.Errorf("%s: the registry sends it in parts that are too small", b.req.op)
			}
			return err
		}
		if err != nil {
			if waitErr := b.c.wait(b.ctx, b.tries, err); waitErr != nil {
				return waitErr
			}
		}
		if err = b.open(); err == nil {
			return nil
		}
	}
}

func (b *blobReader) close() {
	if b.body != nil {
		b.body.Close()
		b.body = nil
	}
}

// Close implements io.Closer.
func (b *blobReader) Close() error {
	b.close()
	if b.err == nil {
		b.err = errors.New("read of a closed blob")
	}
	return nil
}

// noEOF makes an end that comes too early an error that says so.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
