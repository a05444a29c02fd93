package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/protocol"
	"github.com/tare-oci/tare/image/reference"
	"github.com/tare-oci/tare/internal/ijson"
)

func isDigest(ref string) bool { return strings.Contains(ref, ":") }

// accepts returns the Accept header for a manifest that should be of a media type; empty: of any that we know.
func accepts(mediaType string) []string {
	types := protocol.ManifestTypes()
	if mediaType != "" && !slices.Contains(types, mediaType) {
		types = append(types, mediaType)
	}
	return []string{strings.Join(types, ", ")}
}

// Resolve implements content.Source: ref is a tag or a digest. It asks by HEAD, which does not count on registries that limit
// pulls, and by GET where the answer lacks something. What HEAD said is verified when the descriptor is fetched.
func (r *Repository) Resolve(ctx context.Context, ref string) (v1.Descriptor, error) {
	want, err := checkReference(ref)
	if err != nil {
		return v1.Descriptor{}, err
	}
	req := r.request("resolve "+ref, http.MethodHead, r.c.url(protocol.ManifestPath(r.name, ref)), "pull")
	req.header = http.Header{"Accept": accepts("")}
	resp, err := r.c.send(ctx, req)
	switch {
	case refusesHead(err):
	case err != nil:
		return v1.Descriptor{}, err
	default:
		discard(resp)
		d, err := r.described(resp, want)
		if err != nil {
			return v1.Descriptor{}, fmt.Errorf("%s: %w", req.op, err)
		}
		if d != nil {
			return *d, nil
		}
	}
	doc, err := r.get(ctx, ref, v1.Descriptor{Digest: want, Size: -1})
	return doc.desc, err
}

// described returns what the head of a response says about a manifest, nil if it does not say enough. want is empty for a tag.
func (r *Repository) described(resp *http.Response, want digest.Digest) (*v1.Descriptor, error) {
	got, err := contentDigest(resp)
	if err != nil {
		return nil, err
	}
	d := v1.Descriptor{MediaType: protocol.MediaType(resp.Header.Get("Content-Type")), Digest: got, Size: resp.ContentLength}
	if want != "" {
		if got != "" && got.Algorithm() == want.Algorithm() && got != want {
			return nil, fmt.Errorf("the registry answers with %s", got)
		}
		d.Digest = want
	}
	switch {
	case d.Digest == "" || d.Size < 0 || !isDocument(d.MediaType):
		return nil, nil
	case d.Size > r.c.opt.Limits.Manifest:
		return nil, fmt.Errorf("manifest has %d bytes, the limit is %d", d.Size, r.c.opt.Limits.Manifest)
	}
	return &d, nil
}

// contentDigest returns the digest in the head of a response, empty if there is none. One that is malformed is an error: it
// would get into addresses and file names (CVE-2024-3727).
func contentDigest(resp *http.Response) (digest.Digest, error) {
	values := resp.Header.Values(protocol.HeaderContentDigest)
	if len(values) == 0 {
		return "", nil
	}
	d := digest.Digest(values[0])
	if err := reference.CheckDigest(d); err != nil || len(values) > 1 {
		return "", fmt.Errorf("header %s of the registry: %.100q is not one digest", protocol.HeaderContentDigest, strings.Join(values, ", "))
	}
	if reference.CheckVerifiable(d) != nil {
		return "", nil
	}
	return d, nil
}

// Manifest returns a manifest or index by tag or digest: its descriptor and its bytes, which must not be changed. Digest and
// media type are verified.
func (r *Repository) Manifest(ctx context.Context, ref string) (v1.Descriptor, []byte, error) {
	want, err := checkReference(ref)
	if err != nil {
		return v1.Descriptor{}, nil, err
	}
	doc, err := r.get(ctx, ref, v1.Descriptor{Digest: want, Size: -1})
	return doc.desc, doc.raw, err
}

// get fetches a document. Of want, what is set (a size that is not negative) must be met.
func (r *Repository) get(ctx context.Context, ref string, want v1.Descriptor) (document, error) {
	if doc, ok := r.remembered(want); ok {
		return doc, nil
	}
	req := r.request("get manifest "+ref, http.MethodGet, r.c.url(protocol.ManifestPath(r.name, ref)), "pull")
	req.header = http.Header{"Accept": accepts(want.MediaType)}
	limit := r.c.opt.Limits.Manifest
	if want.Size > limit {
		return document{}, fmt.Errorf("%s: it has %d bytes, the limit is %d", req.op, want.Size, limit)
	}
	raw, resp, err := r.c.body(ctx, req, "manifest", limit)
	if err != nil {
		return document{}, err
	}
	doc := document{desc: want, raw: raw}
	if err := doc.check(resp, r.c.warn); err != nil {
		return document{}, fmt.Errorf("%s: %w", req.op, err)
	}
	r.remember(doc)
	return doc, nil
}

// body gets the whole body of a small answer, again if it breaks off.
func (c *Client) body(ctx context.Context, req *request, what string, limit int64) ([]byte, *http.Response, error) {
	for attempt := 1; ; attempt++ {
		resp, err := c.send(ctx, req)
		if err != nil {
			return nil, nil, err
		}
		raw, err := readAll(resp, what, limit)
		if err == nil && resp.ContentLength >= 0 && int64(len(raw)) != resp.ContentLength {
			err = fmt.Errorf("%s has %d of %d bytes", what, len(raw), resp.ContentLength)
		}
		if err == nil {
			return raw, resp, nil
		}
		err = fmt.Errorf("%s: %w", req.op, err)
		if attempt >= c.opt.Retry.Attempts || !c.passes(err) {
			return nil, nil, err
		}
		if err := c.wait(ctx, attempt, err); err != nil {
			return nil, nil, err
		}
	}
}

// check verifies a document that resp brought against what desc says already, and fills in what it does not say.
func (doc *document) check(resp *http.Response, warn func(string)) error {
	size := int64(len(doc.raw))
	if doc.desc.Size >= 0 && doc.desc.Size != size {
		return fmt.Errorf("manifest has %d bytes, %d were announced", size, doc.desc.Size)
	}
	doc.desc.Size = size
	header, err := contentDigest(resp)
	if err != nil {
		return err
	}
	for _, want := range []digest.Digest{doc.desc.Digest, header} {
		if want == "" {
			continue
		}
		if got := want.Algorithm().FromBytes(doc.raw); got != want {
			return fmt.Errorf("manifest has digest %s, %s was announced", got, want)
		}
		if doc.desc.Digest == "" {
			doc.desc.Digest = want
		}
	}
	if doc.desc.Digest == "" {
		doc.desc.Digest = digest.SHA256.FromBytes(doc.raw)
	}
	return doc.checkType(protocol.MediaType(resp.Header.Get("Content-Type")), warn)
}

// checkType decides what media type the document has by image-spec "Media Types" and distribution-spec "Pulling manifests":
// what is expected (desc), what the registry says (sent) and what the document says. A document that could be taken for two kinds is
// refused (CVE-2021-41190).
func (doc *document) checkType(sent string, warn func(string)) error {
	var head struct {
		MediaType     string          `json:"mediaType"`
		SchemaVersion int             `json:"schemaVersion"`
		Manifests     json.RawMessage `json:"manifests"`
		Config        json.RawMessage `json:"config"`
		Layers        json.RawMessage `json:"layers"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := ijson.Unmarshal(doc.raw, &head); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	isIndex, isManifest := has(head.Manifests), has(head.Config) || has(head.Layers) || has(head.FSLayers)
	if isIndex && isManifest {
		return errors.New("manifest is ambiguous: it has the fields of an index and of a manifest")
	}
	if head.SchemaVersion == 1 || strings.HasPrefix(sent, "application/vnd.docker.distribution.manifest.v1+") {
		return errors.New("manifest is of Docker's schema 1, which is not supported: push the image again with a current tool")
	}
	own := head.MediaType
	generic := sent == "" || sent == "application/json" || sent == "text/plain" || sent == protocol.OctetStream
	switch {
	case doc.desc.MediaType != "": // MT1: the expected one counts, by a digest that is met
		if sent != doc.desc.MediaType && !generic {
			warn(fmt.Sprintf("the registry says that manifest %s is %.100q; it is %q", doc.desc.Digest, sent, doc.desc.MediaType))
		}
	case own != "" && !generic && own != sent:
		return fmt.Errorf("manifest says that it is %.100q, the registry that it is %.100q", own, sent)
	case own != "":
		doc.desc.MediaType = own
	case !generic:
		doc.desc.MediaType = sent
	case isIndex:
		doc.desc.MediaType = v1.MediaTypeImageIndex
	case isManifest:
		doc.desc.MediaType = v1.MediaTypeImageManifest
	default:
		return errors.New("answer is neither a manifest nor an index")
	}
	if own != "" && own != doc.desc.MediaType {
		return fmt.Errorf("manifest says that it is %.100q, expected is %q", own, doc.desc.MediaType)
	}
	return nil
}

func has(field json.RawMessage) bool { return len(field) > 0 && string(field) != "null" }

// Tag implements content.Target: ref is a tag.
func (r *Repository) Tag(ctx context.Context, d v1.Descriptor, ref string) error {
	if err := reference.CheckTag(ref); err != nil {
		return err
	}
	if err := reference.CheckVerifiable(d.Digest); err != nil {
		return err
	}
	doc, err := r.get(ctx, d.Digest.String(), d)
	if err != nil {
		return err
	}
	return r.PushManifest(ctx, doc.desc, doc.raw, ref)
}

// PushManifest pushes a manifest or an index, and gives it tags, in as few requests as the registry allows. raw must be what d
// says. What it refers to is pushed before.
func (r *Repository) PushManifest(ctx context.Context, d v1.Descriptor, raw []byte, tags ...string) error {
	if err := reference.CheckVerifiable(d.Digest); err != nil {
		return err
	}
	if int64(len(raw)) != d.Size || d.Digest.Algorithm().FromBytes(raw) != d.Digest {
		return fmt.Errorf("push manifest %s: content has %d bytes and digest %s", d.Digest, len(raw), d.Digest.Algorithm().FromBytes(raw))
	}
	for _, tag := range tags {
		if err := reference.CheckTag(tag); err != nil {
			return err
		}
	}
	doc := document{desc: d, raw: bytes.Clone(raw)}
	ref := d.Digest.String()
	// Docker's registry knows only sha256 by itself, and a tag's manifest by it: a tag alone would lose another algorithm.
	if len(tags) == 1 && d.Digest.Algorithm() == digest.SHA256 {
		ref, tags = tags[0], nil
	}
	made, err := r.publish(ctx, doc, ref, tags)
	if err != nil {
		return err
	}
	r.remember(doc)
	for _, tag := range tags {
		if slices.Contains(made, tag) {
			continue
		}
		if _, err := r.publish(ctx, doc, tag, nil); err != nil {
			return err
		}
	}
	return nil
}

// publish puts a document under a tag or its digest, lists it as a referrer if the registry does not do that itself, and
// returns which of tags the registry has made besides (end-7b).
func (r *Repository) publish(ctx context.Context, doc document, ref string, tags []string) ([]string, error) {
	head, err := r.put(ctx, doc, ref, tags)
	if err != nil {
		return nil, err
	}
	if head.Get(protocol.HeaderSubject) == "" {
		if err := r.pushed(ctx, doc); err != nil {
			return nil, err
		}
	}
	var made []string
	for _, value := range head.Values(protocol.HeaderTag) {
		for tag := range strings.SplitSeq(value, ",") {
			made = append(made, strings.TrimSpace(tag))
		}
	}
	return made, nil
}

// put sends a document and returns the head of the answer.
func (r *Repository) put(ctx context.Context, doc document, ref string, tags []string) (http.Header, error) {
	var query []string
	for _, tag := range tags {
		query = append(query, protocol.QueryTag, tag)
	}
	req := r.request("push manifest "+ref, http.MethodPut, r.c.url(protocol.ManifestPath(r.name, ref), query...), "pull", "push")
	mediaType := doc.desc.MediaType
	if mediaType == "" {
		return nil, fmt.Errorf("%s: its descriptor has no media type", req.op)
	}
	req.header = http.Header{"Content-Type": {mediaType}}
	req.body = newPayload(bytes.NewReader(doc.raw), doc.desc).piece(0, doc.desc.Size)
	resp, err := r.c.send(ctx, req)
	if err != nil {
		if status(err) == http.StatusRequestEntityTooLarge {
			err = fmt.Errorf("%w (the manifest has %d bytes)", err, len(doc.raw))
		}
		return nil, err
	}
	discard(resp)
	got, err := contentDigest(resp)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", req.op, err)
	}
	if got != "" && got.Algorithm().FromBytes(doc.raw) != got {
		return nil, fmt.Errorf("%s: the registry has stored %s instead of %s", req.op, got, doc.desc.Digest)
	}
	return resp.Header, nil
}
