package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/auth"
	"github.com/tare-oci/tare/distribution/protocol"
	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/reference"
)

// proxyChunk is the size of chunks for a registry behind a proxy that refuses large bodies.
const proxyChunk = 32 << 20

// Push implements content.Target. What broke is tried again if r is an io.Seeker, from where the registry has it; else the
// first break after the first byte is the end. Whatever happens, an upload that did not succeed is cancelled.
func (r *Repository) Push(ctx context.Context, d v1.Descriptor, src io.Reader) error {
	if err := reference.CheckVerifiable(d.Digest); err != nil {
		return err
	}
	if d.Size < 0 {
		return fmt.Errorf("push %s: size %d is negative", d.Digest, d.Size)
	}
	if isDocument(d.MediaType) {
		return r.pushDocument(ctx, d, src)
	}
	p := newPayload(src, d)
	if d.Size == 0 { // nothing is read of it on the way
		if err := p.verify(); err != nil {
			return fmt.Errorf("push blob to %s: %w", r, err)
		}
	}
	u := &upload{r: r, p: p, chunk: r.c.opt.ChunkSize}
	return u.run(ctx)
}

func (r *Repository) pushDocument(ctx context.Context, d v1.Descriptor, src io.Reader) error {
	if limit := r.c.opt.Limits.Manifest; d.Size > limit {
		return fmt.Errorf("push manifest %s: it has %d bytes, the limit is %d", d.Digest, d.Size, limit)
	}
	checked, err := content.Verify(src, d)
	if err != nil {
		return err
	}
	raw, err := io.ReadAll(checked)
	if err != nil {
		return fmt.Errorf("push manifest %s: %w", d.Digest, err)
	}
	return r.PushManifest(ctx, d, raw)
}

// MountFrom makes a blob of another repository of this registry one of this repository, without a transfer: false if src is no
// such repository, or the registry does not do it for whatever reason, and the blob has to be pushed.
func (r *Repository) MountFrom(ctx context.Context, d v1.Descriptor, src content.Fetcher) (bool, error) {
	other, ok := src.(*Repository)
	if !ok || other.c.origin != r.c.origin || other.name == r.name || isDocument(d.MediaType) {
		return false, nil
	}
	return r.Mount(ctx, d, other.name)
}

// Mount asks the registry to take a blob over from another of its repositories, from; empty: from whichever has it. False: it
// did not, and the blob has to be pushed.
func (r *Repository) Mount(ctx context.Context, d v1.Descriptor, from string) (bool, error) {
	if err := reference.CheckVerifiable(d.Digest); err != nil {
		return false, err
	}
	query := []string{protocol.QueryMount, d.Digest.String()}
	if from != "" {
		if err := protocol.CheckName(from); err != nil {
			return false, err
		}
		query = append(query, protocol.QueryFrom, from)
	}
	req := r.request("mount blob "+d.Digest.String(), http.MethodPost, r.c.url(protocol.UploadsPath(r.name), query...), "pull", "push")
	if from != "" {
		req.scopes = append(req.scopes, auth.Repository(from, "pull"))
	}
	req.accept = []int{http.StatusCreated, http.StatusAccepted}
	resp, err := r.c.send(ctx, req)
	if s := status(err); s >= 400 && s < 500 && s != http.StatusTooManyRequests {
		return false, nil // what it does not allow here, it will say at the push
	}
	if err != nil {
		return false, err
	}
	discard(resp)
	if resp.StatusCode == http.StatusAccepted { // it has opened an upload instead
		u := &upload{r: r}
		if u.moved(resp) == nil {
			u.cancel(ctx)
		}
		return false, nil
	}
	got, err := contentDigest(resp)
	if err == nil && got != "" && got.Algorithm() == d.Digest.Algorithm() && got != d.Digest {
		err = fmt.Errorf("the registry has mounted %s", got)
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", req.op, err)
	}
	return true, nil
}

// upload is a blob on its way.
//
//	POST …/blobs/uploads/ ──► 202 Location A
//	PATCH A, bytes 0-9    ──► 202 Location B, Range 0-9       only in chunks
//	(broken or 416)  GET B ──► 204 Location C, Range 0-4       then on from byte 5
//	PUT C?digest=…, rest  ──► 201
//	DELETE C                                                  when given up
type upload struct {
	r        *Repository
	p        *payload
	chunk    int64    // 0: one piece
	min      int64    // OCI-Chunk-Min-Length
	location *url.URL // the newest one; nil: no session
	offset   int64    // what the registry has
	begun    bool     // the session was there
	resumed  bool     // it was gone on with after a break
}

// run uploads the blob, in as many sessions as it needs.
func (u *upload) run(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		err := u.transfer(ctx)
		if err == nil {
			return nil
		}
		c, d := u.r.c, u.p.want
		smaller := status(err) == http.StatusRequestEntityTooLarge && u.chunk == 0 && d.Size > proxyChunk
		u.cancel(ctx)
		whole := &piece{u.p, 0, d.Size}
		if attempt >= c.opt.Retry.Attempts || !whole.rewindable() || !smaller && !u.passes(err) {
			return err
		}
		if smaller {
			u.chunk = proxyChunk
			continue
		}
		if err := c.wait(ctx, attempt, err); err != nil {
			return err
		}
		// The answer to a PUT may have been lost.
		if ok, err := u.r.Exists(ctx, d); err == nil && ok {
			return nil
		}
	}
}

// passes reports whether a new session may succeed where one ended with err: also where this one was lost, or the registry
// cannot go on after a break though it seemed so (docker-registry answers 400).
func (u *upload) passes(err error) bool {
	switch s := status(err); {
	case s == http.StatusNotFound, s == http.StatusConflict:
		return u.begun
	case s == http.StatusRequestedRangeNotSatisfiable:
		return true
	case s == http.StatusBadRequest:
		return u.resumed
	}
	return u.r.c.passes(err)
}

// transfer opens a session and brings the blob to its end there, going on where it breaks as long as that gets it further.
func (u *upload) transfer(ctx context.Context) error {
	u.begun, u.resumed = false, false
	if err := u.begin(ctx); err != nil {
		return err
	}
	last, tries := int64(0), 0
	for {
		done, err := u.step(ctx)
		if done {
			return nil
		}
		if err == nil {
			tries = 0
			continue
		}
		misplaced := status(err) == http.StatusRequestedRangeNotSatisfiable
		// A registry that has not noticed yet that the last request broke says 409.
		later := u.r.c.passes(err) || status(err) == http.StatusConflict
		if tries++; !misplaced && !later || tries >= u.r.c.opt.Retry.Attempts {
			return err
		}
		if later {
			if waitErr := u.r.c.wait(ctx, tries, err); waitErr != nil {
				return waitErr
			}
		}
		if u.progress(ctx) != nil || !(&piece{u.p, u.offset, 0}).rewindable() {
			return err
		}
		u.resumed = true
		if u.offset >= last+progressUnit {
			last, tries = u.offset, 0
		}
	}
}

// begin opens a session.
func (u *upload) begin(ctx context.Context) error {
	var query []string
	if alg := u.p.want.Digest.Algorithm(); alg != digest.SHA256 {
		query = []string{protocol.QueryDigestAlgorithm, alg.String()}
	}
	req := u.request("begin upload of blob", http.MethodPost, u.r.c.url(protocol.UploadsPath(u.r.name), query...))
	req.accept = []int{http.StatusAccepted}
	resp, err := u.r.c.send(ctx, req)
	if err != nil {
		return err
	}
	discard(resp)
	u.offset, u.location, u.begun = 0, nil, true
	if n, err := strconv.ParseInt(resp.Header.Get(protocol.HeaderChunkMinLength), 10, 64); err == nil && n > 0 {
		u.min = n
	}
	if err := u.moved(resp); err != nil {
		return fmt.Errorf("%s: %w", req.op, err)
	}
	return nil
}

func (u *upload) request(what, method string, at *url.URL) *request {
	return u.r.request(what+" "+u.p.want.Digest.String(), method, at, "pull", "push")
}

// moved takes the address of the session from an answer. It may be on another host, which gets no credential.
func (u *upload) moved(resp *http.Response) error {
	if len(resp.Header.Get("Location")) > protocol.MaxHeaderText {
		return &refusal{fmt.Errorf("the registry's Location is longer than the limit of %d bytes", protocol.MaxHeaderText)}
	}
	to, err := resp.Location()
	if err != nil {
		if u.location != nil && errors.Is(err, http.ErrNoLocation) {
			return nil // the old one stays
		}
		return &refusal{fmt.Errorf("the registry's Location: %w", err)}
	}
	// A registry behind a proxy that ends TLS often does not know that it is spoken to with TLS.
	if from := resp.Request.URL; from.Scheme == "https" && to.Scheme == "http" && to.Hostname() == from.Hostname() && (to.Port() == "" || to.Port() == from.Port()) {
		to.Scheme, to.Host = from.Scheme, from.Host
	}
	if err := u.r.c.checkElsewhere(resp.Request.URL, to); err != nil {
		return err
	}
	to.Fragment = ""
	u.location = to
	return nil
}

// step sends the next chunk, or the last one with the digest.
func (u *upload) step(ctx context.Context) (done bool, err error) {
	size, left := u.p.want.Size, u.p.want.Size-u.offset
	chunk := max(u.chunk, u.min)
	if u.chunk == 0 || left <= chunk {
		return u.finish(ctx)
	}
	req := u.request("upload blob", http.MethodPatch, u.location)
	req.once, req.accept = true, []int{http.StatusAccepted, http.StatusCreated, http.StatusNoContent}
	span := protocol.Range{First: u.offset, Last: min(u.offset+chunk, size) - 1}
	req.header = http.Header{"Content-Type": {protocol.OctetStream}, "Content-Range": {span.String()}}
	req.body = u.p.piece(u.offset, span.Length())
	resp, err := u.r.c.send(ctx, req)
	if err != nil {
		return false, err
	}
	discard(resp)
	if err := u.moved(resp); err != nil {
		return false, fmt.Errorf("%s: %w", req.op, err)
	}
	u.offset = span.Last + 1
	if err := u.received(resp, span.First); err != nil && !errors.Is(err, errNoRange) {
		return false, err
	}
	if u.offset == span.First {
		return false, &refusal{fmt.Errorf("%s: the registry took nothing of a chunk of %d bytes", req.op, span.Length())}
	}
	return false, nil
}

// errNoRange says that an answer does not tell how much of an upload is there. One to a chunk means that all of it is.
var errNoRange = errors.New("the registry does not say what it has of an upload")

// received reads how much the registry has of what was sent (up to offset). from is what it had before.
func (u *upload) received(resp *http.Response, from int64) error {
	got, err := protocol.ParseUploadRange(strings.TrimPrefix(resp.Header.Get("Range"), "bytes="))
	if err != nil {
		return fmt.Errorf("%w: %w", errNoRange, err)
	}
	end := got.Last + 1
	if end == 1 && u.offset != 1 { // "0-0" is what registries send for nothing, too
		end = 0
	}
	if got.First != 0 || end < from || end > u.offset {
		return &refusal{fmt.Errorf("upload of blob %s: the registry says that it has bytes %s, it was sent 0-%d", u.p.want.Digest, got, u.offset-1)}
	}
	if !u.p.piece(end, 0).rewindable() {
		return fmt.Errorf("upload of blob %s: the registry took %d of %d bytes, and the content can be read once only", u.p.want.Digest, end, u.offset)
	}
	u.offset = end
	return nil
}

// progress asks how much of a broken upload has arrived.
func (u *upload) progress(ctx context.Context) error {
	req := u.request("ask for upload of blob", http.MethodGet, u.location)
	req.once, req.accept = true, []int{http.StatusNoContent, http.StatusOK, http.StatusAccepted}
	resp, err := u.r.c.send(ctx, req)
	if err != nil {
		return err
	}
	discard(resp)
	if err := u.moved(resp); err != nil {
		return err
	}
	u.offset = u.p.want.Size
	return u.received(resp, 0)
}

// finish sends what is left, and the digest.
func (u *upload) finish(ctx context.Context) (bool, error) {
	d := u.p.want
	at, err := url.Parse(protocol.WithQuery(u.location.String(), protocol.QueryDigest, d.Digest.String()))
	if err != nil {
		return false, &refusal{err}
	}
	req := u.request("push blob", http.MethodPut, at)
	req.once, req.accept = true, []int{http.StatusCreated, http.StatusOK, http.StatusNoContent}
	req.header = http.Header{"Content-Type": {protocol.OctetStream}}
	req.body = u.p.piece(u.offset, d.Size-u.offset)
	if u.offset > 0 && u.offset < d.Size {
		req.header.Set("Content-Range", protocol.Range{First: u.offset, Last: d.Size - 1}.String())
	}
	resp, err := u.r.c.send(ctx, req)
	if err != nil {
		return false, err
	}
	discard(resp)
	u.location = nil // the session is over
	got, err := contentDigest(resp)
	if err != nil {
		return false, fmt.Errorf("%s: %w", req.op, &refusal{err})
	}
	switch {
	case got == "" || got == d.Digest:
	case got.Algorithm() == d.Digest.Algorithm():
		return false, &refusal{fmt.Errorf("%s: the registry has stored %s instead", req.op, got)}
	default: // Docker's registry stores it by sha256 whatever it was asked for
		ok, err := u.r.Exists(ctx, d)
		if err == nil && !ok {
			err = &refusal{fmt.Errorf("%s: the registry has stored %s instead: it does not support %s", req.op, got, d.Digest.Algorithm())}
		}
		return err == nil, err
	}
	return true, nil
}

// cancel ends the session, if there is one: distribution-spec "Canceling an upload". Whether it worked makes no difference.
func (u *upload) cancel(ctx context.Context) {
	if u.location == nil {
		return
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer stop()
	req := u.r.request("cancel upload", http.MethodDelete, u.location, "pull", "push")
	req.once = true
	u.location = nil
	if resp, err := u.r.c.send(ctx, req); err == nil {
		discard(resp)
	}
}
