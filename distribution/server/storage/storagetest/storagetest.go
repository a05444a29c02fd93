// Package storagetest checks that a storage does what package storage says.
package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	// The hash functions that go-digest finds by crypto.Hash have to be linked.
	_ "crypto/sha256"
	_ "crypto/sha512"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/server/storage"
)

// Test runs all checks. Each opens a storage of its own, which is empty; open registers what has to be cleaned up.
func Test(t *testing.T, open func(t *testing.T) storage.Storage) {
	for _, c := range []struct {
		name string
		run  func(*world)
	}{
		{"Blob", blob}, {"Mount", mount}, {"Unlink", unlink}, {"Chunks", chunks}, {"BrokenChunk", brokenChunk},
		{"Algorithms", algorithms}, {"Mismatch", mismatch}, {"UploadOwner", uploadOwner}, {"ConcurrentUploads", concurrentUploads},
		{"Manifest", manifest}, {"Require", require}, {"Expect", expect}, {"DeleteManifest", deleteManifest}, {"Lists", lists},
		{"Repositories", repositories}, {"Referrers", referrers}, {"Sweep", sweep}, {"SweepUsed", sweepUsed}, {"Contents", contents},
		{"Unknown", unknown},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(&world{t, open(t), t.Context()}) })
	}
}

type world struct {
	*testing.T
	s   storage.Storage
	ctx context.Context
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) is(err, want error) {
	w.Helper()
	if !errors.Is(err, want) {
		w.Fatalf("error %v, want %v", err, want)
	}
}

// random is content that no other test has.
func random(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// push uploads content in one request.
func (w *world) push(repo string, content []byte) digest.Digest {
	w.Helper()
	d := digest.FromBytes(content)
	id, err := w.s.StartUpload(w.ctx, repo, digest.SHA256)
	w.ok(err)
	info, err := w.s.CommitUpload(w.ctx, repo, id, 0, bytes.NewReader(content), d)
	w.ok(err)
	if info.Digest != d || info.Size != int64(len(content)) || info.Used.IsZero() {
		w.Fatalf("committed %+v, want %s with %d bytes", info, d, len(content))
	}
	return d
}

// read opens a blob and reads it.
func (w *world) read(repo string, d digest.Digest) []byte {
	w.Helper()
	b, err := w.s.OpenBlob(w.ctx, repo, d)
	w.ok(err)
	defer b.Content.Close()
	data, err := io.ReadAll(b.Content)
	w.ok(err)
	if int64(len(data)) != b.Size {
		w.Fatalf("blob has %d bytes, its info says %d", len(data), b.Size)
	}
	return data
}

func blob(w *world) {
	for _, size := range []int{0, 1, 1 << 10, 256 << 10, 1<<20 + 1, 5<<20 + 7} {
		content := random(size)
		d := w.push("a/b", content)
		if !bytes.Equal(w.read("a/b", d), content) {
			w.Fatalf("%d bytes came back changed", size)
		}
		info, err := w.s.StatBlob(w.ctx, "a/b", d)
		w.ok(err)
		if info.Size != int64(size) || info.Digest != d {
			w.Fatalf("stat %+v", info)
		}
	}
	content := random(1000)
	b, err := w.s.OpenBlob(w.ctx, "a/b", w.push("a/b", content))
	w.ok(err)
	defer b.Content.Close()
	_, err = b.Content.Seek(990, io.SeekStart)
	w.ok(err)
	if rest, err := io.ReadAll(b.Content); err != nil || !bytes.Equal(rest, content[990:]) {
		w.Fatalf("after a seek: %d bytes, %v", len(rest), err)
	}
	w.push("a/b", content) // again is no error
}

func mount(w *world) {
	content := random(100)
	d := w.push("from", content)
	_, err := w.s.OpenBlob(w.ctx, "to", d)
	w.is(err, storage.ErrRepositoryUnknown)
	w.push("to", random(1))
	_, err = w.s.StatBlob(w.ctx, "to", d)
	w.is(err, storage.ErrBlobUnknown) // the bytes are there, the right is not
	_, err = w.s.LinkBlob(w.ctx, "to", "other", d)
	w.is(err, storage.ErrBlobUnknown)
	_, err = w.s.LinkBlob(w.ctx, "nowhere", "other", d)
	w.is(err, storage.ErrRepositoryUnknown)
	_, err = w.s.LinkBlob(w.ctx, "from", "to", d)
	w.ok(err)
	info, err := w.s.LinkBlob(w.ctx, "", "third", d)
	w.ok(err)
	if info.Size != 100 || !bytes.Equal(w.read("to", d), content) || !bytes.Equal(w.read("third", d), content) {
		w.Fatal("mounted blob differs")
	}
	_, err = w.s.LinkBlob(w.ctx, "", "third", digest.FromString("nobody has it"))
	w.is(err, storage.ErrBlobUnknown)
}

func unlink(w *world) {
	content := random(100)
	d := w.push("a", content)
	w.push("b", content)
	w.read("a", d) // whatever keeps it in memory now must not bring it back
	w.ok(w.s.UnlinkBlob(w.ctx, "a", d))
	_, err := w.s.StatBlob(w.ctx, "b", d)
	w.ok(err)
	for range 2 {
		_, err = w.s.OpenBlob(w.ctx, "a", d)
		w.is(err, storage.ErrBlobUnknown)
		_, err = w.s.TouchBlob(w.ctx, "a", d)
		w.is(err, storage.ErrBlobUnknown)
	}
	w.is(w.s.UnlinkBlob(w.ctx, "a", d), storage.ErrBlobUnknown)
	if !bytes.Equal(w.read("b", d), content) {
		w.Fatal("the other repository lost it")
	}
}

func chunks(w *world) {
	content := random(3 << 20)
	id, err := w.s.StartUpload(w.ctx, "a", digest.SHA256)
	w.ok(err)
	for i, c := range []struct{ offset, from, to int64 }{{0, 0, 1}, {-1, 1, 1 << 20}, {1 << 20, 1 << 20, 2 << 20}} {
		n, err := w.s.AppendUpload(w.ctx, "a", id, c.offset, bytes.NewReader(content[c.from:c.to]))
		w.ok(err)
		u, err := w.s.StatUpload(w.ctx, "a", id)
		w.ok(err)
		if n != c.to || u.Received != c.to || u.ID != id || u.Repository != "a" || u.Algorithm != digest.SHA256 || u.Changed.IsZero() {
			w.Fatalf("chunk %d: %d received, state %+v", i, n, u)
		}
	}
	var order *storage.OffsetError
	for _, offset := range []int64{0, 1 << 20, 3 << 20} {
		_, err = w.s.AppendUpload(w.ctx, "a", id, offset, strings.NewReader("x"))
		if !errors.As(err, &order) || order.Received != 2<<20 {
			w.Fatalf("chunk at %d: %v", offset, err)
		}
	}
	if _, err = w.s.CommitUpload(w.ctx, "a", id, 5, strings.NewReader("x"), digest.FromBytes(content)); !errors.As(err, &order) {
		w.Fatalf("last chunk out of order: %v", err)
	}
	d := digest.FromBytes(content)
	_, err = w.s.CommitUpload(w.ctx, "a", id, 2<<20, bytes.NewReader(content[2<<20:]), d)
	w.ok(err)
	if !bytes.Equal(w.read("a", d), content) {
		w.Fatal("chunks came together changed")
	}
	_, err = w.s.StatUpload(w.ctx, "a", id)
	w.is(err, storage.ErrUploadUnknown)
}

// broken yields content and then an error.
type broken struct {
	r   io.Reader
	err error
}

func (b *broken) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if errors.Is(err, io.EOF) {
		err = b.err
	}
	return n, err
}

func brokenChunk(w *world) {
	content := random(2 << 20)
	id, err := w.s.StartUpload(w.ctx, "a", digest.SHA256)
	w.ok(err)
	lost := errors.New("connection lost")
	for _, to := range []int64{10, 1 << 20} {
		u, err := w.s.StatUpload(w.ctx, "a", id)
		w.ok(err)
		n, err := w.s.AppendUpload(w.ctx, "a", id, u.Received, &broken{bytes.NewReader(content[u.Received:to]), lost})
		w.is(err, lost)
		if n != to {
			w.Fatalf("%d received of a chunk that broke, want %d", n, to)
		}
	}
	d := digest.FromBytes(content)
	_, err = w.s.CommitUpload(w.ctx, "a", id, 1<<20, &broken{bytes.NewReader(content[1<<20 : 3<<19]), lost}, d)
	w.is(err, lost)
	_, err = w.s.StatBlob(w.ctx, "a", d)
	if err == nil {
		w.Fatal("a blob that was never complete is there")
	}
	_, err = w.s.CommitUpload(w.ctx, "a", id, 3<<19, bytes.NewReader(content[3<<19:]), d)
	w.ok(err)
	if !bytes.Equal(w.read("a", d), content) {
		w.Fatal("resumed upload differs")
	}
}

func algorithms(w *world) {
	content := random(1 << 20)
	for _, begun := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		for _, ended := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
			for _, first := range []int{0, 1000} {
				id, err := w.s.StartUpload(w.ctx, "a", begun)
				w.ok(err)
				if first > 0 {
					_, err = w.s.AppendUpload(w.ctx, "a", id, 0, bytes.NewReader(content[:first]))
					w.ok(err)
				}
				d := ended.FromBytes(content)
				_, err = w.s.CommitUpload(w.ctx, "a", id, int64(first), bytes.NewReader(content[first:]), d)
				w.ok(err)
				if !bytes.Equal(w.read("a", d), content) {
					w.Fatalf("begun with %s, ended with %s: differs", begun, ended)
				}
			}
		}
	}
}

func mismatch(w *world) {
	wrong := digest.FromString("another")
	id, err := w.s.StartUpload(w.ctx, "a", digest.SHA256)
	w.ok(err)
	_, err = w.s.CommitUpload(w.ctx, "a", id, 0, strings.NewReader("content"), wrong)
	w.is(err, storage.ErrDigestMismatch)
	_, err = w.s.StatUpload(w.ctx, "a", id)
	w.is(err, storage.ErrUploadUnknown)
	for _, d := range []digest.Digest{wrong, digest.FromString("content")} {
		if _, err = w.s.StatBlob(w.ctx, "a", d); err == nil {
			w.Fatalf("%s is there", d)
		}
	}
}

func uploadOwner(w *world) {
	id, err := w.s.StartUpload(w.ctx, "a", digest.SHA256)
	w.ok(err)
	d := digest.FromString("x")
	for _, c := range []struct{ repo, id string }{{"b", id}, {"a", "no-such"}, {"a", ".."}, {"a", ""}, {"a", strings.Repeat("a", 300)}} {
		_, err = w.s.StatUpload(w.ctx, c.repo, c.id)
		w.is(err, storage.ErrUploadUnknown)
		_, err = w.s.AppendUpload(w.ctx, c.repo, c.id, 0, strings.NewReader("x"))
		w.is(err, storage.ErrUploadUnknown)
		_, err = w.s.CommitUpload(w.ctx, c.repo, c.id, 0, strings.NewReader("x"), d)
		w.is(err, storage.ErrUploadUnknown)
		w.is(w.s.AbortUpload(w.ctx, c.repo, c.id), storage.ErrUploadUnknown)
	}
	w.ok(w.s.AbortUpload(w.ctx, "a", id))
	w.is(w.s.AbortUpload(w.ctx, "a", id), storage.ErrUploadUnknown)
	_, err = w.s.AppendUpload(w.ctx, "a", id, 0, strings.NewReader("x"))
	w.is(err, storage.ErrUploadUnknown)
}

func concurrentUploads(w *world) {
	content := random(1 << 20)
	d := digest.FromBytes(content)
	errs := make(chan error)
	for i := range 8 {
		go func() {
			repo := fmt.Sprintf("r%d", i%2)
			id, err := w.s.StartUpload(w.ctx, repo, digest.SHA256)
			if err == nil {
				_, err = w.s.CommitUpload(w.ctx, repo, id, 0, bytes.NewReader(content), d)
			}
			errs <- err
		}()
	}
	var all []error
	for range 8 {
		all = append(all, <-errs)
	}
	w.ok(errors.Join(all...))
	for _, repo := range []string{"r0", "r1"} {
		if !bytes.Equal(w.read(repo, d), content) {
			w.Fatal("differs")
		}
	}
	// Two requests to one upload: one of them at least succeeds, and what it wrote is what counts.
	id, err := w.s.StartUpload(w.ctx, "a", digest.SHA256)
	w.ok(err)
	started, release := make(chan struct{}), make(chan struct{})
	go func() {
		_, err := w.s.AppendUpload(w.ctx, "a", id, 0, io.MultiReader(&gate{started, release}, bytes.NewReader(content)))
		errs <- err
	}()
	<-started
	_, err = w.s.AppendUpload(w.ctx, "a", id, 0, strings.NewReader("x"))
	w.is(err, storage.ErrUploadBusy)
	close(release)
	w.ok(<-errs)
	_, err = w.s.CommitUpload(w.ctx, "a", id, -1, nil, d)
	w.ok(err)
}

// gate says that it is read and waits.
type gate struct{ started, release chan struct{} }

func (g *gate) Read([]byte) (int, error) {
	close(g.started)
	<-g.release
	return 0, io.EOF
}

// put stores a manifest of any content.
func (w *world) put(repo string, m storage.Manifest, opts storage.PutOptions) digest.Digest {
	w.Helper()
	w.ok(w.s.PutManifest(w.ctx, repo, m, opts))
	return m.Descriptor.Digest
}

func made(content string) storage.Manifest {
	return storage.Manifest{Raw: []byte(content), Descriptor: v1.Descriptor{
		MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString(content), Size: int64(len(content))}}
}

func manifest(w *world) {
	for _, d := range []digest.Digest{digest.FromString("{\n}"), digest.SHA512.FromString("{\n}")} {
		m := storage.Manifest{
			Descriptor: v1.Descriptor{MediaType: v1.MediaTypeImageIndex, Digest: d, Size: 3, ArtifactType: "a/b", Annotations: map[string]string{"k": "v\n"}},
			Raw:        []byte("{\n}"), Subject: digest.FromString("subject"),
			Blobs: []digest.Digest{digest.FromString("b")}, Manifests: []digest.Digest{digest.FromString("m")},
		}
		w.put("a", m, storage.PutOptions{Tags: []string{"t", "u"}})
		for range 2 {
			got, err := w.s.GetManifest(w.ctx, "a", d)
			w.ok(err)
			if got.Pushed.IsZero() {
				w.Fatal("no time of the push")
			}
			got.Pushed = m.Pushed
			if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", m) {
				w.Fatalf("got  %+v\nwant %+v", got, m)
			}
		}
		for _, tag := range []string{"t", "u"} {
			if got, err := w.s.GetTag(w.ctx, "a", tag); err != nil || got != d {
				w.Fatalf("tag %s: %s %v", tag, got, err)
			}
		}
		w.put("a", m, storage.PutOptions{}) // again is no error
	}
	w.ok(w.s.DeleteTag(w.ctx, "a", "t", nil))
	_, err := w.s.GetTag(w.ctx, "a", "t")
	w.is(err, storage.ErrTagUnknown)
	w.is(w.s.DeleteTag(w.ctx, "a", "t", nil), storage.ErrTagUnknown)
	_, err = w.s.GetTag(w.ctx, "a", "u")
	w.ok(err)
}

func require(w *world) {
	d := w.push("a", random(10))
	child := w.put("a", made("child"), storage.PutOptions{})
	other := w.push("b", random(11))
	m := made("m")
	opts := storage.PutOptions{Tags: []string{"t"}, RequireBlobs: []digest.Digest{d, other},
		RequireManifests: []digest.Digest{child, digest.FromString("none")}}
	var missing *storage.MissingError
	if err := w.s.PutManifest(w.ctx, "a", m, opts); !errors.As(err, &missing) || len(missing.Digests) != 2 || missing.Digests[0] != other {
		w.Fatalf("error %v", err)
	}
	_, err := w.s.GetManifest(w.ctx, "a", m.Descriptor.Digest)
	w.is(err, storage.ErrManifestUnknown)
	_, err = w.s.GetTag(w.ctx, "a", "t")
	w.is(err, storage.ErrTagUnknown)
	if err := w.s.PutManifest(w.ctx, "new", m, opts); !errors.As(err, &missing) {
		w.Fatalf("error %v", err)
	}
	opts.RequireBlobs, opts.RequireManifests = opts.RequireBlobs[:1], opts.RequireManifests[:1]
	w.put("a", m, opts)
}

func expect(w *world) {
	first, second := made("1"), made("2")
	w.put("a", first, storage.PutOptions{Tags: []string{"t"}})
	seen := map[string]digest.Digest{}
	opts := storage.PutOptions{Tags: []string{"new", "t"}, Expect: func(tag string, now digest.Digest) bool {
		seen[tag] = now
		return now == ""
	}}
	w.is(w.s.PutManifest(w.ctx, "a", second, opts), storage.ErrConditionFailed)
	if seen["new"] != "" || seen["t"] != first.Descriptor.Digest {
		w.Fatalf("asked with %v", seen)
	}
	_, err := w.s.GetTag(w.ctx, "a", "new")
	w.is(err, storage.ErrTagUnknown)
	if now, err := w.s.GetTag(w.ctx, "a", "t"); err != nil || now != first.Descriptor.Digest {
		w.Fatalf("tag is %s, %v", now, err)
	}
	w.is(w.s.DeleteTag(w.ctx, "a", "t", func(digest.Digest) bool { return false }), storage.ErrConditionFailed)
	w.ok(w.s.DeleteTag(w.ctx, "a", "t", func(now digest.Digest) bool { return now == first.Descriptor.Digest }))

	// Of several that each want to be the first, one is.
	errs := make(chan error)
	for i := range 8 {
		go func() {
			errs <- w.s.PutManifest(w.ctx, "a", made(fmt.Sprint("racer", i)), storage.PutOptions{Tags: []string{"race"},
				Expect: func(_ string, now digest.Digest) bool { return now == "" }})
		}()
	}
	won := 0
	for range 8 {
		if err := <-errs; err == nil {
			won++
		} else if !errors.Is(err, storage.ErrConditionFailed) {
			w.Error(err)
		}
	}
	if won != 1 {
		w.Fatalf("%d of 8 were the first", won)
	}
}

func deleteManifest(w *world) {
	m := made("m")
	m.Subject = digest.FromString("s")
	d := w.put("a", m, storage.PutOptions{Tags: []string{"x", "y"}})
	w.put("a", made("n"), storage.PutOptions{Tags: []string{"z"}})
	w.put("b", m, storage.PutOptions{Tags: []string{"x"}})
	_, err := w.s.GetManifest(w.ctx, "a", d)
	w.ok(err)
	w.ok(w.s.DeleteManifest(w.ctx, "a", d))
	for range 2 {
		_, err = w.s.GetManifest(w.ctx, "a", d)
		w.is(err, storage.ErrManifestUnknown)
	}
	tags, _, err := w.s.ListTags(w.ctx, "a", "", 10)
	w.ok(err)
	if !slices.Equal(tags, []string{"z"}) {
		w.Fatalf("tags %v", tags)
	}
	list, _, err := w.s.ListReferrers(w.ctx, "a", m.Subject, "", 10)
	w.ok(err)
	if len(list) != 0 {
		w.Fatalf("referrers %v", list)
	}
	w.is(w.s.DeleteManifest(w.ctx, "a", d), storage.ErrManifestUnknown)
	_, err = w.s.GetManifest(w.ctx, "b", d)
	w.ok(err)
	w.put("a", m, storage.PutOptions{})
	_, err = w.s.GetManifest(w.ctx, "a", d)
	w.ok(err)
}

// pages reads a list in pages of n and checks that it is what it should be.
func (w *world) pages(want []string, list func(after string, n int) ([]string, bool, error)) {
	w.Helper()
	for _, n := range []int{1, 2, len(want), len(want) + 1} {
		var got []string
		after := ""
		for {
			page, more, err := list(after, n)
			w.ok(err)
			if len(page) > n || more && len(page) == 0 {
				w.Fatalf("page of %d entries, more %v, for n=%d", len(page), more, n)
			}
			if got = append(got, page...); !more {
				break
			}
			after = page[len(page)-1]
		}
		if !slices.Equal(got, want) {
			w.Fatalf("in pages of %d: %v, want %v", n, got, want)
		}
	}
}

func lists(w *world) {
	want := []string{"0", "A", "Z", "_x", "a", "a-1", "a.1", "a_1", "b", "latest"}
	m := made("m")
	for _, i := range rand.Perm(len(want)) {
		w.put("a", m, storage.PutOptions{Tags: want[i : i+1]})
		_, _, err := w.s.ListTags(w.ctx, "a", "", 3)
		w.ok(err)
	}
	list := func(after string, n int) ([]string, bool, error) { return w.s.ListTags(w.ctx, "a", after, n) }
	w.pages(want, list)
	for after, first := range map[string]string{"": "0", "0": "A", "B": "Z", "a-": "a-1", "a-1": "a.1", "/": "0"} {
		page, _, err := list(after, 1)
		w.ok(err)
		if len(page) != 1 || page[0] != first {
			w.Fatalf("after %q: %v, want %s", after, page, first)
		}
	}
	if page, more, err := list("latest", 5); len(page) != 0 || more || err != nil {
		w.Fatalf("after the last: %v %v %v", page, more, err)
	}
	w.ok(w.s.DeleteTag(w.ctx, "a", "a.1", nil))
	w.pages(slices.DeleteFunc(slices.Clone(want), func(s string) bool { return s == "a.1" }), list)
}

func repositories(w *world) {
	list := func(after string, n int) ([]string, bool, error) { return w.s.ListRepositories(w.ctx, after, n) }
	w.pages(nil, list)
	want := []string{"a", "a-b", "a.b", "a/b", "a/b/c", "a0", "a_b", "ab"}
	for _, i := range rand.Perm(len(want)) {
		w.push(want[i], random(3))
		_, _, err := list("", 1)
		w.ok(err)
	}
	w.pages(want, list)
}

func referrers(w *world) {
	subject := digest.FromString("subject")
	w.put("a", made("unrelated"), storage.PutOptions{})
	var want []string
	for i := range 5 {
		m := made(fmt.Sprint("referrer", i))
		m.Subject, m.Descriptor.ArtifactType, m.Descriptor.Annotations = subject, "t/a", map[string]string{"i": fmt.Sprint(i)}
		want = append(want, string(w.put("a", m, storage.PutOptions{})))
		w.put("a", m, storage.PutOptions{})
	}
	slices.Sort(want)
	w.pages(want, func(after string, n int) ([]string, bool, error) {
		page, more, err := w.s.ListReferrers(w.ctx, "a", subject, after, n)
		var list []string
		for _, d := range page {
			if d.ArtifactType != "t/a" || d.Annotations["i"] == "" || d.Size == 0 || d.MediaType == "" {
				w.Fatalf("descriptor %+v", d)
			}
			list = append(list, string(d.Digest))
		}
		return list, more, err
	})
	for _, repo := range []string{"a", "b"} {
		page, more, err := w.s.ListReferrers(w.ctx, repo, digest.FromString("none"), "", 5)
		if len(page) > 0 || more || err != nil && !errors.Is(err, storage.ErrRepositoryUnknown) {
			w.Fatalf("referrers of nothing: %v %v", page, err)
		}
	}
}

func unknown(w *world) {
	d := digest.FromString("x")
	_, err := w.s.StatBlob(w.ctx, "a", d)
	w.is(err, storage.ErrRepositoryUnknown)
	_, err = w.s.GetManifest(w.ctx, "a", d)
	w.is(err, storage.ErrRepositoryUnknown)
	_, err = w.s.GetTag(w.ctx, "a", "t")
	w.is(err, storage.ErrRepositoryUnknown)
	_, _, err = w.s.ListTags(w.ctx, "a", "", 1)
	w.is(err, storage.ErrRepositoryUnknown)
	w.is(w.s.DeleteManifest(w.ctx, "a", d), storage.ErrRepositoryUnknown)
	w.is(w.s.DeleteTag(w.ctx, "a", "t", nil), storage.ErrRepositoryUnknown)
	w.is(w.s.UnlinkBlob(w.ctx, "a", d), storage.ErrRepositoryUnknown)
	err = w.s.Sweep(w.ctx, "a", func(storage.Contents) (storage.Removal, error) { return storage.Removal{}, nil })
	w.is(err, storage.ErrRepositoryUnknown)
	w.push("a", []byte("y"))
	if tags, more, err := w.s.ListTags(w.ctx, "a", "", 1); len(tags) > 0 || more || err != nil {
		w.Fatalf("tags of a repository with a blob: %v %v", tags, err)
	}
}
