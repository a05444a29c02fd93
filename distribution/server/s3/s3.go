// Package s3 keeps a registry in a bucket of an S3-compatible object store. Several servers may share one bucket: what must
// not happen twice at once is decided by conditional writes of the store (If-None-Match, If-Match), which it must therefore
// have; Open finds out.
//
// The objects of a registry, below a prefix; NAME is a repository's name written so that its parts sort as they should:
//
//	names/NAME                              the repository exists
//	repositories/NAME/blobs/ALG/HEX         a blob is linked: where its bytes are, their number, when it was used
//	repositories/NAME/manifests/ALG/HEX     a manifest: a line of JSON, then its bytes
//	repositories/NAME/tags/TAG              what a tag names and since when
//	repositories/NAME/tagged/ALG/HEX/TAG    the reverse
//	repositories/NAME/referrers/ALG/HEX/…   descriptors of what refers to a manifest
//	content/ALG/HEX                         where the bytes of a blob are, whatever repositories have it
//	data/ID                                 the bytes, as they were uploaded: they are never copied or moved
//	uploads/ID/…                            an upload under way: its state, and what is too small for a part
//	locks/…                                 who changes the tags of a repository, or writes to an upload, just now
//
// A link or content that was removed stays as an object that says so, some hundred bytes: so a removal and a use at the same
// time are decided by one conditional write, and no deleted object can be taken for one that never was.
package s3

import (
	"bytes"
	"context"
	_ "crypto/sha256" // digests are in either
	_ "crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server/storage"
)

// Options are where the bucket is. The keys are used for nothing but requests to it.
type Options struct {
	Endpoint             string // http://host:port or https://host
	Bucket, Prefix       string
	Region               string
	AccessKey, SecretKey string
	Temp                 string            // directory for parts of uploads on their way; is made if it is not there
	Expiry               time.Duration     // how long an address that BlobURL returns is good
	Transport            http.RoundTripper // nil for the usual one
}

// Store is a storage.Storage in a bucket.
type Store struct {
	client *minio.Core
	opts   Options
	names  sync.Map // repositories that are known to exist: they are never removed
	inside keyed    // what goroutines of this process would otherwise fight about
}

var (
	_ storage.Storage    = (*Store)(nil)
	_ storage.Redirector = (*Store)(nil)
)

// Open opens a storage in a bucket, which must exist.
func Open(ctx context.Context, o Options) (*Store, error) {
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("open bucket: the endpoint is not http://HOST or https://HOST")
	}
	client, err := minio.NewCore(u.Host, &minio.Options{Creds: credentials.NewStaticV4(o.AccessKey, o.SecretKey, ""), Secure: u.Scheme == "https",
		Region: o.Region, Transport: o.Transport, MaxRetries: 4})
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	if o.Prefix != "" && !strings.HasSuffix(o.Prefix, "/") {
		o.Prefix += "/"
	}
	if err := os.MkdirAll(o.Temp, 0o700); err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	s := &Store{client: client, opts: o}
	if err := s.probe(ctx); err != nil {
		return nil, fmt.Errorf("open bucket %s of %s: %w", o.Bucket, u.Host, err)
	}
	return s, nil
}

// probe finds out whether the store honours conditions. One that does not know them ignores them, and two servers would
// destroy each other's work.
func (s *Store) probe(ctx context.Context) error {
	key := "probe/" + newID()
	etag, err := s.put(ctx, key, []byte("1"), onlyNew)
	if err != nil {
		return err
	}
	defer func() { _ = s.remove(context.WithoutCancel(ctx), key) }() // a few bytes that nobody looks at
	_, err1 := s.put(ctx, key, []byte("2"), onlyNew)
	_, err2 := s.put(ctx, key, []byte("3"), "0123456789abcdef0123456789abcdef")
	_, err3 := s.put(ctx, key, []byte("4"), etag)
	if !errors.Is(err1, errConflict) || !errors.Is(err2, errConflict) || err3 != nil {
		return errors.New("the store does not have conditional writes (If-None-Match, If-Match), without which a registry in it is not safe")
	}
	return nil
}

// Errors of single objects.
var (
	errAbsent   = errors.New("no such object")
	errConflict = errors.New("the object is another by now")
)

// maxObject is the most bytes of an object that is read into memory: a manifest with what is known of it.
const maxObject = 16 << 20

// get reads an object.
func (s *Store) get(ctx context.Context, key string) (data []byte, etag string, err error) {
	body, info, _, err := s.client.GetObject(ctx, s.opts.Bucket, s.opts.Prefix+key, minio.GetObjectOptions{})
	if err != nil {
		return nil, "", translate("read", err)
	}
	defer body.Close()
	if data, err = io.ReadAll(io.LimitReader(body, maxObject+1)); err != nil {
		return nil, "", translate("read", err)
	}
	if len(data) > maxObject {
		return nil, "", fmt.Errorf("read object: more than %d bytes", maxObject)
	}
	return data, info.ETag, nil
}

// getJSON reads an object into v.
func (s *Store) getJSON(ctx context.Context, key string, v any) (etag string, err error) {
	data, etag, err := s.get(ctx, key)
	if err == nil {
		if err = json.Unmarshal(data, v); err != nil {
			err = fmt.Errorf("read object %s: %w", key, err)
		}
	}
	return etag, err
}

// onlyNew and anyway are conditions of put, beside the ETag that an object must have.
const (
	anyway  = ""
	onlyNew = "*"
)

// put writes an object if the condition holds, otherwise errConflict.
func (s *Store) put(ctx context.Context, key string, data []byte, condition string) (etag string, err error) {
	var o minio.PutObjectOptions
	switch condition {
	case anyway:
	case onlyNew:
		o.SetMatchETagExcept("*")
	default:
		o.SetMatchETag(condition)
	}
	o.DisableMultipart = true
	info, err := s.client.Client.PutObject(ctx, s.opts.Bucket, s.opts.Prefix+key, bytes.NewReader(data), int64(len(data)), o)
	if err != nil {
		err = translate("write", err)
		if condition != anyway && errors.Is(err, errAbsent) {
			err = errConflict
		}
	}
	return info.ETag, err
}

func (s *Store) putJSON(ctx context.Context, key string, v any, condition string) (etag string, err error) {
	data, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("write object %s: %w", key, err)
	}
	return s.put(ctx, key, data, condition)
}

// remove removes an object; one that is not there is no error.
func (s *Store) remove(ctx context.Context, key string) error {
	err := s.client.RemoveObject(ctx, s.opts.Bucket, s.opts.Prefix+key, minio.RemoveObjectOptions{})
	if err = translate("remove", err); errors.Is(err, errAbsent) {
		return nil
	}
	return err
}

// list calls each for the keys below prefix that come after start, in the order of their bytes, until it returns false.
func (s *Store) list(ctx context.Context, prefix, start string, each func(rest string) (bool, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o := minio.ListObjectsOptions{Prefix: s.opts.Prefix + prefix, Recursive: true}
	if start != "" {
		o.StartAfter = s.opts.Prefix + prefix + start
	}
	for info := range s.client.Client.ListObjects(ctx, s.opts.Bucket, o) {
		if info.Err != nil {
			return translate("list", info.Err)
		}
		rest := strings.TrimPrefix(info.Key, o.Prefix)
		if rest == "" || strings.HasSuffix(rest, "/") {
			continue
		}
		if more, err := each(rest); !more || err != nil {
			return err
		}
	}
	return ctx.Err()
}

// page lists at most n of what is below prefix after a text, and whether there is more. parse may say that an object is none.
func (s *Store) page(ctx context.Context, prefix, after string, n int, parse func(rest string) (string, bool)) (list []string, more bool, err error) {
	err = s.list(ctx, prefix, clip(after), func(rest string) (bool, error) {
		name, ok := parse(rest)
		if !ok {
			return true, nil
		}
		if len(list) == n {
			more = true
			return false, nil
		}
		list = append(list, name)
		return true, nil
	})
	return list, more, err
}

// clip makes of any text one that sorts in the same place among names of printable ASCII, and that a store takes for a key.
func clip(after string) string {
	for i := range len(after) {
		switch c := after[i]; {
		case i == 512 || c > '~':
			return after[:i] + "~"
		case c < ' ':
			return after[:i]
		}
	}
	return after
}

// translate makes errors of the store ours.
func translate(verb string, err error) error {
	if err == nil {
		return nil
	}
	r := minio.ToErrorResponse(err)
	switch {
	case r.StatusCode == http.StatusPreconditionFailed, r.Code == "PreconditionFailed", r.Code == "ConditionalRequestConflict":
		return errConflict
	case r.Code == "NoSuchKey", r.Code == "NoSuchUpload":
		return errAbsent
	case r.Code == "EntityTooLarge", r.Code == "QuotaExceeded", r.StatusCode == http.StatusInsufficientStorage:
		return fmt.Errorf("%s object: %w: %w", verb, storage.ErrNoSpace, err)
	}
	return fmt.Errorf("%s object: %w", verb, err)
}

// encode writes the name of a repository as one part of a key, so that keys sort as names do: among the bytes of names, / comes
// between . and the digits.
func encode(repo string) string {
	return strings.NewReplacer(".", ".a", "/", ".b").Replace(repo)
}

func decode(key string) string {
	return strings.NewReplacer(".a", ".", ".b", "/").Replace(key)
}

// hex is a digest as two parts of a key.
func hex(d digest.Digest) string { return d.Algorithm().String() + "/" + d.Encoded() }

// digestOf reads the two parts of a key.
func digestOf(rest string) (digest.Digest, bool) {
	alg, encoded, ok := strings.Cut(rest, "/")
	d := digest.Digest(alg + ":" + encoded)
	return d, ok && d.Validate() == nil
}

func repoKey(repo string) string { return "repositories/" + encode(repo) + "/" }

// exists reports whether there is a repository.
func (s *Store) exists(ctx context.Context, repo string) (bool, error) {
	if _, ok := s.names.Load(repo); ok {
		return true, nil
	}
	_, _, err := s.get(ctx, "names/"+encode(repo))
	if errors.Is(err, errAbsent) {
		return false, nil
	}
	if err == nil {
		s.names.Store(repo, true)
	}
	return err == nil, err
}

// create makes a repository, if it is not there.
func (s *Store) create(ctx context.Context, repo string) error {
	there, err := s.exists(ctx, repo)
	if there || err != nil {
		return err
	}
	if _, err := s.put(ctx, "names/"+encode(repo), []byte(repo), anyway); err != nil {
		return err
	}
	s.names.Store(repo, true)
	return nil
}

// unknown returns what for something that is not in a repository, or that the repository is not there.
func (s *Store) unknown(ctx context.Context, repo string, what error) error {
	there, err := s.exists(ctx, repo)
	switch {
	case err != nil:
		return err
	case !there:
		return storage.ErrRepositoryUnknown
	}
	return what
}

// ListRepositories implements storage.Manifests.
func (s *Store) ListRepositories(ctx context.Context, after string, n int) ([]string, bool, error) {
	return s.page(ctx, "names/", encode(clip(after)), n, func(rest string) (string, bool) { return decode(rest), true })
}
