package collect

import (
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server/access"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// decide says what of a repository is garbage.
func decide(name string, has storage.Contents, policy Policy, now time.Time) storage.Removal {
	old := now.Add(-policy.Grace)
	var removal storage.Removal
	removal.Tags = expired(name, has.Tags, policy.Retention, now)
	g := newGraph(has.Manifests)

	gone := map[string]bool{}
	var lost []digest.Digest // manifests that lose a tag
	for _, tag := range removal.Tags {
		gone[tag] = true
		lost = append(lost, has.Tags[tag].Digest)
	}
	doomed := g.reach(lost)
	var roots []digest.Digest
	for tag, info := range has.Tags {
		if !gone[tag] {
			roots = append(roots, info.Digest)
		}
	}
	for _, m := range has.Manifests {
		d := m.Descriptor.Digest
		if m.Pushed.After(old) || !policy.Untagged && !doomed[d] {
			roots = append(roots, d)
		}
	}
	held := g.reach(roots)
	blobs := map[digest.Digest]bool{}
	for _, m := range has.Manifests {
		if !held[m.Descriptor.Digest] {
			removal.Manifests = append(removal.Manifests, m.Descriptor.Digest)
			continue
		}
		for _, d := range slices.Concat(m.Blobs, m.Manifests) { // an index may list what is not a manifest
			blobs[d] = true
		}
	}
	for _, b := range has.Blobs {
		if !blobs[b.Digest] && !b.Used.After(old) {
			removal.Blobs = append(removal.Blobs, b.Digest)
		}
	}
	slices.Sort(removal.Manifests)
	slices.Sort(removal.Blobs)
	return removal
}

// graph is what holds what: an index what it lists, a subject what refers to it.
type graph map[digest.Digest][]digest.Digest

func newGraph(manifests []storage.Manifest) graph {
	g := graph{}
	for _, m := range manifests {
		d := m.Descriptor.Digest
		g[d] = append(g[d], m.Manifests...)
		if m.Subject != "" {
			g[m.Subject] = append(g[m.Subject], d)
		}
	}
	return g
}

// reach returns all that the roots hold, with themselves.
func (g graph) reach(roots []digest.Digest) map[digest.Digest]bool {
	held := map[digest.Digest]bool{}
	pending := slices.Clone(roots)
	for len(pending) > 0 {
		d := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		if !held[d] {
			held[d] = true
			pending = append(pending, g[d]...)
		}
	}
	return held
}

// expired returns the tags that go, in order.
func expired(name string, tags map[string]storage.TagInfo, rules []Rule, now time.Time) []string {
	about, kept := map[string]bool{}, map[string]bool{}
	for _, r := range rules {
		if !slices.ContainsFunc(r.Repositories, func(p string) bool { return access.Match(p, name) }) {
			continue
		}
		var mine []string
		for tag := range tags {
			if len(r.Tags) == 0 || matches(r.Tags, tag) {
				mine = append(mine, tag)
			}
		}
		// The youngest first; of several that were pushed together the last by name, which numbers often make the latest.
		slices.SortFunc(mine, func(a, b string) int {
			if c := tags[b].Changed.Compare(tags[a].Changed); c != 0 {
				return c
			}
			return strings.Compare(b, a)
		})
		for i, tag := range mine {
			about[tag] = true
			if i < r.KeepLast || r.KeepWithin > 0 && tags[tag].Changed.After(now.Add(-r.KeepWithin)) || matches(r.KeepTags, tag) {
				kept[tag] = true
			}
		}
	}
	var gone []string
	for tag := range about {
		if !kept[tag] {
			gone = append(gone, tag)
		}
	}
	slices.Sort(gone)
	return gone
}

// matches knows the patterns of access.Match; a tag has no slash.
func matches(patterns []string, tag string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return access.Match(p, tag) })
}
