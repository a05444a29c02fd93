package hostile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/protocol"
)

// Store is an honest registry in memory, as small as its tests allow: uploads in every form, ranges, mounts, lists in pages,
// and the referrers API unless NoReferrers. It is not fast and knows nobody.
type Store struct {
	// NoReferrers, ChunkMin and TagQuery are set before the first request.
	NoReferrers bool  // there is no referrers API, as in registries before distribution-spec 1.1
	ChunkMin    int64 // OCI-Chunk-Min-Length in bytes, 0 for none
	TagQuery    bool  // tags in the query of a manifest pushed by digest are made

	mu        sync.Mutex
	blobs     map[string][]byte   // NAME@DIGEST
	manifests map[string]document // NAME@DIGEST
	tags      map[string]string   // NAME:TAG to DIGEST
	uploads   map[string][]byte   // path
	next      int
}

type document struct {
	mediaType string
	raw       []byte
}

// NewStore returns an empty registry.
func NewStore() *Store {
	return &Store{blobs: map[string][]byte{}, manifests: map[string]document{}, tags: map[string]string{}, uploads: map[string][]byte{}}
}

// AddBlob stores a blob and returns its descriptor.
func (s *Store) AddBlob(name string, data []byte) v1.Descriptor {
	d := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.FromBytes(data), Size: int64(len(data))}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[name+"@"+d.Digest.String()] = data
	return d
}

// AddManifest stores a manifest, with a tag unless that is empty, and returns its descriptor.
func (s *Store) AddManifest(name, tag, mediaType string, raw []byte) v1.Descriptor {
	d := v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.manifests[name+"@"+d.Digest.String()] = document{mediaType, raw}
	if tag != "" {
		s.tags[name+":"+tag] = d.Digest.String()
	}
	return d
}

// Visible returns, sorted, what somebody could pull: NAME@DIGEST and NAME:TAG.
func (s *Store) Visible() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Collect(maps.Keys(s.blobs))
	all = slices.AppendSeq(all, maps.Keys(s.manifests))
	all = slices.AppendSeq(all, maps.Keys(s.tags))
	slices.Sort(all)
	return all
}

// Uploads returns how many uploads are under way.
func (s *Store) Uploads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.uploads)
}

// ServeHTTP implements http.Handler.
func (s *Store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p, err := protocol.ParsePath(r.URL.Path)
	if err != nil {
		fail(w, http.StatusNotFound, protocol.CodeNameUnknown)
		return
	}
	var body []byte
	var broken error
	if r.Body != nil {
		body, broken = io.ReadAll(r.Body)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch p.Kind {
	case protocol.Base:
		w.Write([]byte("{}"))
	case protocol.Catalog, protocol.Tags:
		s.list(w, r, p)
	case protocol.Blob:
		s.blob(w, r, p)
	case protocol.Manifest:
		s.manifest(w, r, p, body, broken)
	case protocol.Uploads:
		s.begin(w, r, p, body)
	case protocol.Upload:
		s.upload(w, r, body, broken)
	case protocol.Referrers:
		s.referrers(w, p)
	}
}

func fail(w http.ResponseWriter, status int, code protocol.Code) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(protocol.Errors{{Code: code, Message: "so it is"}}.Encode())
}

func (s *Store) blob(w http.ResponseWriter, r *http.Request, p protocol.Path) {
	key := p.Name + "@" + p.UnsafeReference
	data, ok := s.blobs[key]
	switch {
	case !ok:
		fail(w, http.StatusNotFound, protocol.CodeBlobUnknown)
	case r.Method == http.MethodDelete:
		delete(s.blobs, key)
		w.WriteHeader(http.StatusAccepted)
	default:
		w.Header().Set(protocol.HeaderContentDigest, p.UnsafeReference)
		w.Header().Set("Content-Type", protocol.OctetStream)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
}

func (s *Store) manifest(w http.ResponseWriter, r *http.Request, p protocol.Path, body []byte, broken error) {
	if r.Method == http.MethodPut {
		if broken != nil {
			fail(w, http.StatusBadRequest, protocol.CodeManifestInvalid)
			return
		}
		s.putManifest(w, r, p, body)
		return
	}
	ref := p.UnsafeReference
	if !strings.Contains(ref, ":") {
		tag := p.Name + ":" + ref
		ref = s.tags[tag]
		if r.Method == http.MethodDelete && ref != "" {
			delete(s.tags, tag)
			w.WriteHeader(http.StatusAccepted)
			return
		}
	}
	doc, ok := s.manifests[p.Name+"@"+ref]
	switch {
	case !ok:
		fail(w, http.StatusNotFound, protocol.CodeManifestUnknown)
	case r.Method == http.MethodDelete:
		delete(s.manifests, p.Name+"@"+ref)
		maps.DeleteFunc(s.tags, func(k, v string) bool { return v == ref && strings.HasPrefix(k, p.Name+":") })
		w.WriteHeader(http.StatusAccepted)
	default:
		w.Header().Set(protocol.HeaderContentDigest, ref)
		w.Header().Set("Content-Type", doc.mediaType)
		w.Header().Set("Content-Length", strconv.Itoa(len(doc.raw)))
		if r.Method != http.MethodHead {
			w.Write(doc.raw)
		}
	}
}

func (s *Store) putManifest(w http.ResponseWriter, r *http.Request, p protocol.Path, body []byte) {
	d := digest.FromBytes(body)
	if strings.Contains(p.UnsafeReference, ":") {
		want := digest.Digest(p.UnsafeReference)
		if d = want.Algorithm().FromBytes(body); d != want {
			fail(w, http.StatusBadRequest, protocol.CodeDigestInvalid)
			return
		}
	} else {
		s.tags[p.Name+":"+p.UnsafeReference] = d.String()
	}
	if s.TagQuery {
		for _, tag := range r.URL.Query()[protocol.QueryTag] {
			s.tags[p.Name+":"+tag] = d.String()
			w.Header().Add(protocol.HeaderTag, tag)
		}
	}
	s.manifests[p.Name+"@"+d.String()] = document{r.Header.Get("Content-Type"), body}
	var m v1.Manifest
	if json.Unmarshal(body, &m) == nil && m.Subject != nil && !s.NoReferrers {
		w.Header().Set(protocol.HeaderSubject, m.Subject.Digest.String())
	}
	w.Header().Set(protocol.HeaderContentDigest, d.String())
	w.Header().Set("Location", r.URL.Path)
	w.WriteHeader(http.StatusCreated)
}

func (s *Store) begin(w http.ResponseWriter, r *http.Request, p protocol.Path, body []byte) {
	q := r.URL.Query()
	from := q.Get(protocol.QueryFrom) + "@" + q.Get(protocol.QueryMount)
	if data, ok := s.blobs[from]; ok {
		s.blobs[p.Name+"@"+q.Get(protocol.QueryMount)] = data
		w.Header().Set(protocol.HeaderContentDigest, q.Get(protocol.QueryMount))
		w.WriteHeader(http.StatusCreated)
		return
	}
	s.next++
	path := protocol.UploadPath(p.Name, strconv.Itoa(s.next))
	s.uploads[path] = body
	if s.ChunkMin > 0 {
		w.Header().Set(protocol.HeaderChunkMinLength, strconv.FormatInt(s.ChunkMin, 10))
	}
	s.state(w, path, http.StatusAccepted)
}

// state answers with where the session is, in a query of its own, which is another one after each chunk.
func (s *Store) state(w http.ResponseWriter, path string, status int) {
	w.Header().Set("Location", fmt.Sprintf("%s?at=%d", path, len(s.uploads[path])))
	w.Header().Set("Range", protocol.FormatUploadRange(int64(len(s.uploads[path]))))
	w.WriteHeader(status)
}

func (s *Store) upload(w http.ResponseWriter, r *http.Request, body []byte, broken error) {
	path := r.URL.Path
	have, ok := s.uploads[path]
	switch {
	case !ok:
		fail(w, http.StatusNotFound, protocol.CodeBlobUploadUnknown)
		return
	case r.Method == http.MethodDelete:
		delete(s.uploads, path)
		w.WriteHeader(http.StatusNoContent)
		return
	case r.Method == http.MethodGet:
		s.state(w, path, http.StatusNoContent)
		return
	}
	at, err := protocol.ParseUploadRange(r.Header.Get("Content-Range"))
	if err == nil && at.First != int64(len(have)) || r.URL.Query().Get("at") != strconv.Itoa(len(have)) {
		fail(w, http.StatusRequestedRangeNotSatisfiable, protocol.CodeBlobUploadInvalid)
		return
	}
	have = append(have[:len(have):len(have)], body...)
	s.uploads[path] = have
	switch {
	case broken != nil:
		fail(w, http.StatusBadRequest, protocol.CodeBlobUploadInvalid)
	case r.Method == http.MethodPatch && s.ChunkMin > 0 && int64(len(body)) < s.ChunkMin:
		delete(s.uploads, path)
		fail(w, http.StatusBadRequest, protocol.CodeSizeInvalid)
	case r.Method == http.MethodPatch:
		s.state(w, path, http.StatusAccepted)
	default:
		delete(s.uploads, path)
		s.commit(w, r, have)
	}
}

func (s *Store) commit(w http.ResponseWriter, r *http.Request, data []byte) {
	p, err := protocol.ParsePath(r.URL.Path)
	d := digest.Digest(r.URL.Query().Get(protocol.QueryDigest))
	if err != nil || d.Validate() != nil || d.Algorithm().FromBytes(data) != d {
		fail(w, http.StatusBadRequest, protocol.CodeDigestInvalid)
		return
	}
	s.blobs[p.Name+"@"+d.String()] = data
	w.Header().Set(protocol.HeaderContentDigest, d.String())
	w.WriteHeader(http.StatusCreated)
}

func (s *Store) list(w http.ResponseWriter, r *http.Request, p protocol.Path) {
	set := map[string]bool{}
	for key := range s.tags {
		name, tag, _ := strings.Cut(key, ":")
		if p.Kind == protocol.Catalog {
			set[name] = true
		} else if name == p.Name {
			set[tag] = true
		}
	}
	names := slices.Sorted(maps.Keys(set))
	if p.Kind == protocol.Tags && len(names) == 0 {
		fail(w, http.StatusNotFound, protocol.CodeNameUnknown)
		return
	}
	q := r.URL.Query()
	last := q.Get(protocol.QueryLast)
	names = slices.DeleteFunc(names, func(n string) bool { return n <= last })
	if n, err := strconv.Atoi(q.Get(protocol.QueryN)); err == nil && n < len(names) {
		names = names[:n]
		w.Header().Set("Link", protocol.FormatNext(fmt.Sprintf("%s?n=%d&last=%s", r.URL.Path, n, names[n-1])))
	}
	field := "tags"
	if p.Kind == protocol.Catalog {
		field = "repositories"
	}
	json.NewEncoder(w).Encode(map[string]any{"name": p.Name, field: names})
}

func (s *Store) referrers(w http.ResponseWriter, p protocol.Path) {
	if s.NoReferrers {
		fail(w, http.StatusNotFound, protocol.CodeUnsupported)
		return
	}
	idx := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{}}
	idx.SchemaVersion = 2
	for _, key := range slices.Sorted(maps.Keys(s.manifests)) {
		var m v1.Manifest
		name, d, _ := strings.Cut(key, "@")
		doc := s.manifests[key]
		if json.Unmarshal(doc.raw, &m) == nil && name == p.Name && m.Subject != nil && m.Subject.Digest.String() == p.UnsafeReference {
			typ := m.ArtifactType
			if typ == "" {
				typ = m.Config.MediaType
			}
			idx.Manifests = append(idx.Manifests, v1.Descriptor{MediaType: doc.mediaType, Digest: digest.Digest(d), Size: int64(len(doc.raw)),
				ArtifactType: typ, Annotations: m.Annotations})
		}
	}
	w.Header().Set("Content-Type", v1.MediaTypeImageIndex)
	json.NewEncoder(w).Encode(idx)
}
