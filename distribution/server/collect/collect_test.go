package collect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/distribution/server/storage/directory"
)

type world struct {
	*testing.T
	s    *directory.Dir
	root string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	root := t.TempDir()
	s, err := directory.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &world{t, s, root}
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func blob(ctx context.Context, s storage.Storage, repo, content string) (digest.Digest, error) {
	d := digest.FromString(content)
	id, err := s.StartUpload(ctx, repo, digest.SHA256)
	if err == nil {
		_, err = s.CommitUpload(ctx, repo, id, 0, strings.NewReader(content), d)
	}
	return d, err
}

func (w *world) blob(repo, content string) digest.Digest {
	w.Helper()
	d, err := blob(w.Context(), w.s, repo, content)
	w.ok(err)
	return d
}

// manifest has a content that is its name.
func manifest(name string) storage.Manifest {
	raw := []byte(name + strings.Repeat(" ", 100-len(name)))
	return storage.Manifest{Raw: raw, Descriptor: v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(raw), Size: 100}}
}

func (w *world) put(repo string, m storage.Manifest, tags ...string) digest.Digest {
	w.Helper()
	w.ok(w.s.PutManifest(w.Context(), repo, m, storage.PutOptions{Tags: tags}))
	return m.Descriptor.Digest
}

// age makes everything in the registry, or what is below the given directory of it, that much older.
func (w *world) age(by time.Duration, dirs ...string) {
	w.Helper()
	w.s.Close() // what is behind is synced
	s, err := directory.Open(w.root)
	w.ok(err)
	w.s = s
	w.Cleanup(func() { s.Close() })
	for _, dir := range append([]string{}, dirs...) {
		w.ok(filepath.Walk(w.root+"/"+dir, func(path string, info os.FileInfo, err error) error {
			if err != nil || info.IsDir() {
				return err
			}
			t := info.ModTime().Add(-by)
			return os.Chtimes(path, t, t)
		}))
	}
}

// run collects, first dry, and wants both to say the same.
func (w *world) run(p Policy) (freed []string, r Report) {
	w.Helper()
	var dry []string
	planned, err := Run(w.Context(), w.s, Options{Policy: p, DryRun: true, Each: func(f Freed) { dry = append(dry, fmt.Sprint(f)) }})
	w.ok(err)
	before := w.usage()
	r, err = Run(w.Context(), w.s, Options{Policy: p, Each: func(f Freed) {
		freed = append(freed, string(f.Kind)+" "+f.Name)
		if i := slices.Index(dry, fmt.Sprint(f)); i < 0 {
			w.Errorf("freed %v, which the dry run did not say", f)
		} else {
			dry = slices.Delete(dry, i, i+1)
		}
	}})
	w.ok(err)
	if len(dry) > 0 || planned.Bytes != r.Bytes || fmt.Sprint(planned) != fmt.Sprint(r) {
		w.Errorf("dry run: %v, run: %v; not freed: %v", planned, r, dry)
	}
	if freed := before - w.usage(); freed != r.Bytes {
		w.Errorf("%d bytes less, the report says %d", freed, r.Bytes)
	}
	return freed, r
}

// usage is the bytes of blobs, manifests and uploads.
func (w *world) usage() (total int64) {
	w.Helper()
	add := func(b storage.BlobInfo) error { total += b.Size; return nil }
	w.ok(w.s.Contents(w.Context(), add))
	w.ok(w.s.ListUploads(w.Context(), func(u storage.Upload) error { total += u.Received; return nil }))
	repos, _, err := w.s.ListRepositories(w.Context(), "", 100)
	w.ok(err)
	for _, repo := range repos {
		w.ok(w.s.Sweep(w.Context(), repo, func(has storage.Contents) (storage.Removal, error) {
			for _, m := range has.Manifests {
				total += m.Descriptor.Size
			}
			return storage.Removal{}, nil
		}))
	}
	return total
}

// TestHeld has a manifest held in every way, and each without what holds it.
func TestHeld(t *testing.T) {
	w := newWorld(t)
	held, loose := map[string]digest.Digest{}, map[string]digest.Digest{}
	for _, side := range []struct {
		name string
		tags []string
		into map[string]digest.Digest
	}{{"held", []string{"t"}, held}, {"loose", nil, loose}} {
		layer := w.blob("a", side.name+" layer")
		child := manifest(side.name + " child")
		child.Blobs = []digest.Digest{layer}
		index := manifest(side.name + " index")
		index.Manifests = []digest.Digest{child.Descriptor.Digest, digest.FromString("sparse")}
		signature := manifest(side.name + " signature")
		signature.Subject, signature.Blobs = child.Descriptor.Digest, []digest.Digest{w.blob("a", side.name+" signature's")}
		about := manifest(side.name + " about the signature")
		about.Subject = signature.Descriptor.Digest
		side.into["layer"] = layer
		for _, m := range []storage.Manifest{child, signature, about} {
			side.into[string(m.Raw)] = w.put("a", m)
		}
		side.into["index"] = w.put("a", index, side.tags...)
	}
	w.put("b", manifest("other"), "x")
	w.ok(func() error { _, err := w.s.LinkBlob(t.Context(), "a", "b", loose["layer"]); return err }())

	w.age(0)
	if freed, _ := w.run(Policy{Grace: time.Hour, Untagged: true}); len(freed) != 0 {
		t.Fatalf("within the grace period: %v", freed)
	}
	w.age(2*time.Hour, "blobs", "repositories/a", "repositories/b/manifests")
	if freed, _ := w.run(Policy{Grace: time.Hour}); len(freed) != 0 {
		t.Fatalf("untagged manifests are no garbage: %v", freed)
	}
	freed, r := w.run(Policy{Grace: time.Hour, Untagged: true})
	if r.Count[Manifest] != 4 || r.Count[Link] != 2 || r.Count[Blob] != 1 || r.Repositories != 2 ||
		r.Bytes != 4*100+int64(len("loose signature's")) {
		t.Errorf("%+v: %v", r, freed)
	}
	for what, d := range held {
		if what == "layer" {
			_, err := w.s.StatBlob(t.Context(), "a", d)
			w.ok(err)
		} else if _, err := w.s.GetManifest(t.Context(), "a", d); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := w.s.OpenBlob(t.Context(), "b", loose["layer"]) // mounted a moment ago
	w.ok(err)
	w.age(2*time.Hour, "repositories/b/blobs", "blobs")
	if freed, r = w.run(Policy{Grace: time.Hour}); r.Count[Link] != 1 || r.Count[Blob] != 1 {
		t.Errorf("after the mount's grace period: %v", freed)
	}
}

func TestRetention(t *testing.T) {
	for _, c := range []struct {
		rules []Rule
		gone  string
	}{
		{nil, ""},
		{[]Rule{{Repositories: []string{"other"}, KeepLast: 1}}, ""},
		{[]Rule{{Repositories: []string{"**"}, KeepLast: 2}}, "latest nightly-1 nightly-2 v1 v2"},
		{[]Rule{{Repositories: []string{"a"}, Tags: []string{"nightly-*"}, KeepLast: 2}}, "nightly-1 nightly-2"},
		{[]Rule{{Repositories: []string{"a"}, Tags: []string{"nightly-*"}, KeepWithin: 90 * time.Minute}}, "nightly-1 nightly-2 nightly-3"},
		{[]Rule{{Repositories: []string{"a"}, KeepTags: []string{"v*", "latest"}}}, "nightly-1 nightly-2 nightly-3 nightly-4"},
		{[]Rule{{Repositories: []string{"a"}, Tags: []string{"nightly-*"}, KeepLast: 1}, {Repositories: []string{"a"}, KeepTags: []string{"*-1"}}},
			"latest nightly-2 nightly-3 v1 v2"},
	} {
		tags := map[string]storage.TagInfo{}
		now := time.Now()
		for i, tag := range []string{"nightly-4", "nightly-3", "nightly-2", "nightly-1", "v2", "v1", "latest"} {
			tags[tag] = storage.TagInfo{Changed: now.Add(-time.Duration(i+1) * time.Hour)}
		}
		if got := strings.Join(expired("a", tags, c.rules, now), " "); got != c.gone {
			t.Errorf("%+v: %s, want %s", c.rules, got, c.gone)
		}
	}
}

// TestRetentionFrees has tags go, and with them what only they held, though untagged manifests are no garbage.
func TestRetentionFrees(t *testing.T) {
	w := newWorld(t)
	shared := w.blob("a", "shared")
	for i := range 4 {
		m := manifest(fmt.Sprint("image", i))
		m.Blobs = []digest.Digest{shared, w.blob("a", fmt.Sprint("layer", i))}
		w.put("a", m, fmt.Sprint("v", i))
	}
	untagged := w.put("a", manifest("untagged"))
	w.age(2*time.Hour, "blobs", "repositories")
	freed, r := w.run(Policy{Grace: time.Hour, Retention: []Rule{{Repositories: []string{"*"}, KeepLast: 1}}})
	if r.Count[Tag] != 3 || r.Count[Manifest] != 3 || r.Count[Link] != 3 || r.Count[Blob] != 3 || r.Bytes != 3*100+3*6 {
		t.Errorf("%+v: %v", r, freed)
	}
	_, err := w.s.GetManifest(t.Context(), "a", untagged)
	w.ok(err)
	_, err = w.s.StatBlob(t.Context(), "a", shared)
	w.ok(err)
	if _, err := w.s.GetTag(t.Context(), "a", "v3"); err != nil {
		t.Error(err)
	}
}

func TestUploads(t *testing.T) {
	w := newWorld(t)
	ids := make([]string, 3)
	for i := range ids {
		var err error
		ids[i], err = w.s.StartUpload(t.Context(), "a", digest.SHA256)
		w.ok(err)
		_, err = w.s.AppendUpload(t.Context(), "a", ids[i], 0, strings.NewReader("12345"))
		w.ok(err)
	}
	idle := func(id string) {
		dirs, err := filepath.Glob(w.root + "/uploads/*/" + id)
		w.ok(err)
		w.age(2*time.Hour, strings.TrimPrefix(dirs[0], w.root+"/"))
	}
	idle(ids[2])
	if r, err := Uploads(t.Context(), w.s, time.Hour); err != nil || r.Count[Upload] != 1 || r.Bytes != 5 {
		t.Errorf("%+v %v", r, err)
	}
	idle(ids[0])
	if freed, r := w.run(Policy{Uploads: time.Hour}); r.Count[Upload] != 1 || r.Bytes != 5 || freed[0] != "upload "+ids[0] {
		t.Errorf("%+v %v", r, freed)
	}
	_, err := w.s.StatUpload(t.Context(), "a", ids[1])
	w.ok(err)
	_, err = w.s.StatUpload(t.Context(), "a", ids[0])
	if !errors.Is(err, storage.ErrUploadUnknown) {
		t.Error(err)
	}
}

// sick is a storage of which one repository cannot be read.
type sick struct{ storage.Storage }

var errSick = errors.New("input/output error")

func (s sick) Sweep(ctx context.Context, repo string, decide func(storage.Contents) (storage.Removal, error)) error {
	if repo == "sick" {
		return errSick
	}
	return s.Storage.Sweep(ctx, repo, decide)
}

// TestUnreadable keeps all bytes if it is not known what one repository has.
func TestUnreadable(t *testing.T) {
	w := newWorld(t)
	d := w.blob("sick", "content")
	w.ok(func() error { _, err := w.s.LinkBlob(t.Context(), "sick", "well", d); return err }())
	w.age(2*time.Hour, "blobs", "repositories")
	r, err := Run(t.Context(), sick{w.s}, Options{Policy: Policy{Grace: time.Hour}})
	if !errors.Is(err, errSick) || !strings.Contains(err.Error(), "repository sick") || r.Count[Blob] > 0 || r.Count[Link] != 1 {
		t.Errorf("%+v %v", r, err)
	}
	_, err = w.s.OpenBlob(t.Context(), "sick", d)
	w.ok(err)
}

// TestPushesGoOn pushes images in several ways while garbage is collected all the time, without any grace but that a push
// takes. Nothing that a manifest refers to is ever missing.
func TestPushesGoOn(t *testing.T) {
	w := newWorld(t)
	const pushers, images = 4, 25
	ctx := t.Context()
	var wg sync.WaitGroup
	var running atomic.Int32
	running.Store(pushers)
	errs := make(chan error, pushers+1)
	for p := range pushers {
		wg.Go(func() {
			defer running.Add(-1)
			for i := range images {
				if err := pushImage(ctx, w.s, p, i); err != nil {
					errs <- fmt.Errorf("pusher %d, image %d: %w", p, i, err)
					return
				}
			}
		})
	}
	freed := 0
	for running.Load() > 0 {
		r, err := Run(ctx, w.s, Options{Policy: Policy{Grace: 300 * time.Millisecond, Untagged: true,
			Retention: []Rule{{Repositories: []string{"**"}, KeepLast: 5}}}})
		if err != nil {
			errs <- err
			break
		}
		freed += r.Count[Blob]
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	for _, repo := range []string{"r0", "r1"} {
		w.ok(w.s.Sweep(ctx, repo, func(has storage.Contents) (storage.Removal, error) {
			for _, m := range has.Manifests {
				for _, b := range m.Blobs {
					if !slices.ContainsFunc(has.Blobs, func(i storage.BlobInfo) bool { return i.Digest == b && i.Size > 0 }) {
						t.Errorf("%s: manifest %s lost %s", repo, m.Descriptor.Digest, b)
					}
				}
			}
			for tag, info := range has.Tags {
				if !slices.ContainsFunc(has.Manifests, func(m storage.Manifest) bool { return m.Descriptor.Digest == info.Digest }) {
					t.Errorf("%s: tag %s lost its manifest", repo, tag)
				}
			}
			return storage.Removal{}, nil
		}))
	}
	t.Logf("%d blobs freed meanwhile", freed)
}

// pushImage does what a client does: it asks for each blob, mounts or uploads it if it is not there, and pushes the manifest,
// all over again if that lost a race against the clock.
func pushImage(ctx context.Context, s storage.Storage, pusher, i int) error {
	repo, other := fmt.Sprint("r", pusher%2), fmt.Sprint("r", (pusher+1)%2)
	contents := []string{"base", fmt.Sprint("shared", i%3), fmt.Sprint("own", pusher, i)}
	for {
		m := manifest(fmt.Sprint("image", pusher, " ", i))
		for n, content := range contents {
			d := digest.FromString(content)
			m.Blobs = append(m.Blobs, d)
			if _, err := s.TouchBlob(ctx, repo, d); err == nil {
				continue
			}
			if n == 0 {
				if _, err := s.LinkBlob(ctx, other, repo, d); err == nil {
					continue
				}
			}
			if _, err := blob(ctx, s, repo, content); err != nil {
				return err
			}
		}
		err := s.PutManifest(ctx, repo, m, storage.PutOptions{Tags: []string{fmt.Sprintf("t%d-%d", pusher, i%7)}, RequireBlobs: m.Blobs})
		var missing *storage.MissingError
		if !errors.As(err, &missing) {
			return err
		}
	}
}
