package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/image/reference"
)

// maxConfig is the most bytes of a configuration that a page is made of.
const maxConfig = 1 << 20

// tagRow is a line of a repository's page.
type tagRow struct {
	Tag, Kind, Platforms string
	Digest               digest.Digest
	Size                 int64
	Pushed               time.Time
}

// repository lists tags.
func (p *Pages) repository(w http.ResponseWriter, r *http.Request, name string) error {
	after := r.URL.Query().Get("after")
	tags, more, err := p.Storage.ListTags(r.Context(), name, after, pageSize)
	if err != nil {
		return err
	}
	page := struct {
		head
		Name string
		Tags []tagRow
	}{head: p.head(r, name), Name: name}
	if after != "" {
		page.First = "/r/" + name
	}
	for _, tag := range tags {
		row := tagRow{Tag: tag}
		if d, err := p.Storage.GetTag(r.Context(), name, tag); err == nil {
			row.Digest = d
			if m, err := p.Storage.GetManifest(r.Context(), name, d); err == nil {
				row.describe(r.Context(), p, name, m)
			}
		} // a tag that has gone meanwhile has nothing but its name
		page.Tags = append(page.Tags, row)
	}
	if more && len(tags) > 0 {
		page.Next = "/r/" + name + "?after=" + url.QueryEscape(tags[len(tags)-1])
	}
	p.show(w, r, http.StatusOK, "repository", page)
	return nil
}

// document is what the pages know of a manifest or an index.
type document struct {
	Config      *v1.Descriptor    `json:"config"`
	Layers      []v1.Descriptor   `json:"layers"`
	Manifests   []v1.Descriptor   `json:"manifests"`
	Annotations map[string]string `json:"annotations"`
}

func (d document) index() bool { return d.Config == nil && d.Layers == nil }

// sum is the size of config and layers, whatever the document claims.
func (d document) sum() (n int64) {
	list := d.Layers
	if d.Config != nil {
		list = append([]v1.Descriptor{*d.Config}, list...)
	}
	for _, l := range list {
		if n += max(l.Size, 0); n < 0 {
			return 1<<63 - 1
		}
	}
	return n
}

// describe fills in what the list of tags says about an image.
func (row *tagRow) describe(ctx context.Context, p *Pages, name string, m storage.Manifest) {
	row.Pushed = m.Pushed
	var doc document
	if json.Unmarshal(m.Raw, &doc) != nil {
		row.Kind = "not understood"
		return
	}
	if doc.index() {
		row.Kind = "index"
		var platforms []string
		for _, d := range doc.Manifests[:min(len(doc.Manifests), 20)] {
			if d.Platform != nil && d.Platform.OS != "unknown" {
				platforms = append(platforms, platform(d.Platform))
			}
			if sub, err := p.Storage.GetManifest(ctx, name, d.Digest); err == nil {
				var inner document
				if json.Unmarshal(sub.Raw, &inner) == nil {
					row.Size += inner.sum()
				}
			}
		}
		row.Platforms = strings.Join(platforms, ", ")
		return
	}
	row.Size = doc.sum()
	if row.Kind = "image"; doc.Config == nil || !isConfig(doc.Config.MediaType) {
		row.Kind = m.Descriptor.ArtifactType
		return
	}
	if c, err := p.config(ctx, name, *doc.Config); err == nil {
		row.Platforms = platform(&c.Platform)
	}
}

func isConfig(mediaType string) bool {
	return mediaType == v1.MediaTypeImageConfig || mediaType == "application/vnd.docker.container.image.v1+json"
}

// config reads an image's configuration.
func (p *Pages) config(ctx context.Context, name string, d v1.Descriptor) (*v1.Image, error) {
	if err := reference.CheckVerifiable(d.Digest); err != nil {
		return nil, err
	}
	b, err := p.Storage.OpenBlob(ctx, name, d.Digest)
	if err != nil {
		return nil, err
	}
	defer b.Content.Close()
	if b.Size > maxConfig {
		return nil, errLarge
	}
	data, err := io.ReadAll(io.LimitReader(b.Content, maxConfig))
	if err != nil {
		return nil, err
	}
	var c v1.Image
	return &c, json.Unmarshal(data, &c)
}

// because is what a reader may know of an error: not what the storage says of its own files.
func because(err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.Is(err, storage.ErrBlobUnknown):
		return "it is not in the repository."
	case errors.Is(err, errLarge):
		return fmt.Sprintf("it has more than %d bytes.", maxConfig)
	case errors.As(err, &syntax), errors.As(err, &kind):
		return err.Error()
	}
	return "it cannot be read."
}

var errLarge = errors.New("configuration is too large for a page")

func platform(p *v1.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	if p.OSVersion != "" {
		s += " " + p.OSVersion
	}
	return s
}

// pair is an annotation or a label.
type pair struct{ Key, Value string }

func pairs(m map[string]string) (out []pair) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if len(out) == maxRows {
			break
		}
		out = append(out, pair{k, m[k]})
	}
	return out
}

// entry is a line of an index's page, layer or manifest; step one of an image's history; referrer one of what refers to it.
type (
	entry struct {
		Digest    digest.Digest
		MediaType string
		Platform  string
		Size      int64
	}
	step struct {
		Created       time.Time
		Step, Comment string
		Empty         bool
	}
	referrer struct {
		Digest      digest.Digest
		Type        string
		Size        int64
		Annotations []pair
	}
)

// manifestPage is everything about a manifest or an index.
type manifestPage struct {
	head
	Name, Reference, Pull     string
	Digest, Subject           digest.Digest
	MediaType, ArtifactType   string
	Platform, Command, RunsAs string
	Created, Pushed           time.Time
	Size                      int64
	Entries, Layers           []entry
	LayerCount                int
	MoreEntries, MoreLayers   int
	History                   []step
	Referrers                 []referrer
	Annotations, Labels       []pair
}

// manifest shows an image, an index or an artifact.
func (p *Pages) manifest(w http.ResponseWriter, r *http.Request, name, ref string, byDigest bool) error {
	d := digest.Digest(ref)
	page := manifestPage{Name: name, Reference: ref, Pull: r.Host + "/" + name + ":" + ref}
	if byDigest {
		page.Pull = r.Host + "/" + name + "@" + ref
	} else {
		var err error
		if d, err = p.Storage.GetTag(r.Context(), name, ref); err != nil {
			return err
		}
	}
	if reference.CheckVerifiable(d) != nil {
		return errNothing
	}
	m, err := p.Storage.GetManifest(r.Context(), name, d)
	if err != nil {
		return err
	}
	page.head = p.head(r, name+":"+ref)
	if byDigest {
		page.Heading = name + "@" + short(ref)
	}
	page.Pull = strings.Map(func(c rune) rune {
		if c <= ' ' || c >= 0x7f {
			return -1
		}
		return c
	}, page.Pull)
	page.Digest, page.Subject, page.MediaType, page.Pushed = d, m.Subject, m.Descriptor.MediaType, m.Pushed
	if !isConfig(m.Descriptor.ArtifactType) { // which a referrers list would call it
		page.ArtifactType = m.Descriptor.ArtifactType
	}
	p.fill(r.Context(), &page, name, m)
	if err := p.referrers(r, &page); err != nil {
		return err
	}
	p.show(w, r, http.StatusOK, "manifest", page)
	return nil
}

// fill adds what the document and its configuration say.
func (p *Pages) fill(ctx context.Context, page *manifestPage, name string, m storage.Manifest) {
	var doc document
	if err := json.Unmarshal(m.Raw, &doc); err != nil {
		page.Problem = "The document is not understood: " + err.Error()
		return
	}
	page.Annotations = pairs(doc.Annotations)
	if doc.index() {
		page.Size = m.Descriptor.Size
		for _, d := range doc.Manifests[:min(len(doc.Manifests), maxRows)] {
			e := entry{Digest: d.Digest, MediaType: d.MediaType, Size: d.Size, Platform: "any"}
			if d.Platform != nil {
				e.Platform = platform(d.Platform)
			}
			page.Entries = append(page.Entries, e)
		}
		page.MoreEntries = len(doc.Manifests) - len(page.Entries)
		return
	}
	page.Size, page.LayerCount = doc.sum(), len(doc.Layers)
	for _, d := range doc.Layers[:min(len(doc.Layers), maxRows)] {
		page.Layers = append(page.Layers, entry{Digest: d.Digest, MediaType: d.MediaType, Size: d.Size})
	}
	page.MoreLayers = len(doc.Layers) - len(page.Layers)
	if doc.Config == nil || !isConfig(doc.Config.MediaType) {
		return
	}
	c, err := p.config(ctx, name, *doc.Config)
	if err != nil {
		page.Problem = "The configuration cannot be shown: " + because(err)
		return
	}
	page.Platform, page.RunsAs = platform(&c.Platform), c.Config.User
	if c.Created != nil {
		page.Created = *c.Created
	}
	if words := slices.Concat(c.Config.Entrypoint, c.Config.Cmd); len(words) > 0 {
		page.Command = strings.Join(words, " ")
	}
	page.Labels = pairs(c.Config.Labels)
	for _, h := range c.History[:min(len(c.History), maxRows)] {
		s := step{Step: h.CreatedBy, Comment: h.Comment, Empty: h.EmptyLayer}
		if h.Created != nil {
			s.Created = *h.Created
		}
		page.History = append(page.History, s)
	}
}

// referrers adds a page of what refers to the manifest.
func (p *Pages) referrers(r *http.Request, page *manifestPage) error {
	after := r.URL.Query().Get("after")
	list, more, err := p.Storage.ListReferrers(r.Context(), page.Name, page.Digest, after, pageSize)
	if err != nil {
		return err
	}
	here := (&url.URL{Path: r.URL.Path}).String()
	if after != "" {
		page.First = here
	}
	for _, d := range list {
		t := d.ArtifactType
		if t == "" {
			t = d.MediaType
		}
		page.Referrers = append(page.Referrers, referrer{Digest: d.Digest, Type: t, Size: d.Size, Annotations: pairs(d.Annotations)})
	}
	if more && len(list) > 0 {
		page.Next = here + "?after=" + url.QueryEscape(string(list[len(list)-1].Digest))
	}
	return nil
}
