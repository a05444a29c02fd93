package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
	"github.com/tare-oci/tare/internal/ijson"
)

// dockerEntry is one image in the manifest.json of docker save. Config and Layers are names of files in the archive.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// same tells whether two entries are one image.
func (e dockerEntry) same(other dockerEntry) bool {
	return e.Config == other.Config && slices.Equal(e.Layers, other.Layers)
}

// dockerImage finds an image of a docker-archive.
func (a *Archive) dockerImage(ctx context.Context, platform manifest.Platform) (*Image, error) {
	entries, err := a.dockerEntries()
	if err != nil {
		return nil, err
	}
	found, name, err := tagged(a.ref, entries)
	if err != nil {
		return nil, err
	}
	var best *Image
	var available []string
	for i, e := range found {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if i >= maxTries {
			return nil, fmt.Errorf("more than %d images have this name, the limit", maxTries)
		}
		img, err := a.entryImage(e, platform)
		var mismatch *platformError
		if errors.As(err, &mismatch) && len(found) > 1 {
			available = append(available, mismatch.platform())
			continue
		}
		if err != nil {
			return nil, err
		}
		if best, err = better(best, img, platform); err != nil {
			return nil, err
		}
	}
	if best == nil {
		return nil, manifest.NoPlatform(platform, available)
	}
	best.Name = name
	return best, nil
}

// dockerEntries reads manifest.json.
func (a *Archive) dockerEntries() ([]dockerEntry, error) {
	raw, err := a.readFile("manifest.json", manifest.MaxManifest)
	if err != nil {
		return nil, err
	}
	var entries []dockerEntry
	if err := ijson.Unmarshal(raw, &entries); err != nil {
		return nil, fmt.Errorf("manifest.json: %w", err)
	}
	return entries, nil
}

// better returns the one of two images of one name that fits platform better. a may be nil.
func better(a, b *Image, platform manifest.Platform) (*Image, error) {
	if a == nil || a.ID == b.ID {
		return b, nil
	}
	rank := func(i *Image) int { return platform.Rank(i.Config.OS, i.Config.Architecture, i.Config.Variant) }
	switch x, y := rank(a), rank(b); {
	case x < y:
		return a, nil
	case x > y:
		return b, nil
	}
	return nil, fmt.Errorf("name is ambiguous: images %s and %s have it", a.ID, b.ID)
}

// tagged returns the entries that the reference names, and the name. Entries of one name are, as Docker saves them, for
// different platforms.
func tagged(ref reference.Reference, entries []dockerEntry) (found []dockerEntry, name string, err error) {
	if len(entries) == 0 {
		return nil, "", errors.New("manifest.json lists no image")
	}
	if n := ref.Index; n >= 0 {
		if n >= len(entries) {
			return nil, "", fmt.Errorf("there is no image @%d: the archive has %d", n, len(entries))
		}
		return entries[n : n+1], firstTag(entries[n]), nil
	}
	if ref.Name == "" {
		for _, e := range entries[1:] {
			if !e.same(entries[0]) {
				return nil, "", fmt.Errorf("which image is not said: there are %s", listTags(entries))
			}
		}
		return entries[:1], firstTag(entries[0]), nil
	}
	want, err := reference.ParseName(ref.Name)
	if err != nil {
		return nil, "", err
	}
	for _, e := range entries {
		for _, unsafe := range e.RepoTags {
			if have, err := reference.ParseName(unsafe); err == nil && have == want {
				name = unsafe
				found = append(found, e)
				break
			}
		}
	}
	if len(found) == 0 {
		return nil, "", fmt.Errorf("there is no image %.300q: there are %s", ref.Name, listTags(entries))
	}
	return found, name, nil
}

func firstTag(e dockerEntry) string {
	if len(e.RepoTags) == 0 {
		return ""
	}
	return e.RepoTags[0]
}

// listTags lists the names of entries for an error, and how to ask for them by position.
func listTags(entries []dockerEntry) string {
	var names []string
	for i, e := range entries {
		if i == 20 {
			names = append(names, fmt.Sprintf("%d more", len(entries)-i))
			break
		}
		tags := make([]string, 0, len(e.RepoTags))
		for _, tag := range e.RepoTags {
			tags = append(tags, strconv.Quote(tag))
		}
		names = append(names, strings.Join(append(tags, "@"+strconv.Itoa(i)), " "))
	}
	return strings.Join(names, ", ")
}

// entryImage reads the image of an entry.
func (a *Archive) entryImage(e dockerEntry, platform manifest.Platform) (*Image, error) {
	if len(e.Layers) > manifest.MaxLayers {
		return nil, fmt.Errorf("manifest.json lists %d layers, the limit is %d", len(e.Layers), manifest.MaxLayers)
	}
	name, ok := inside(e.Config)
	if !ok {
		return nil, fmt.Errorf("manifest.json: config %.200q is not a name inside the archive", e.Config)
	}
	config, err := a.readFile(name, manifest.MaxConfig)
	if err != nil {
		return nil, err
	}
	if want := configDigest(name); want != "" && manifest.ID(config) != want {
		return nil, fmt.Errorf("config %.200q has digest %s, expected is %s", name, manifest.ID(config), want)
	}
	layers := make([]Layer, len(e.Layers))
	img, err := newImage(config, platform, layers)
	if err != nil {
		return nil, err
	}
	for i, unsafe := range e.Layers {
		layers[i], err = a.fileLayer(unsafe, img.Config.RootFS.DiffIDs[i])
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
	}
	return img, nil
}

// fileLayer returns the layer in a file of the archive. Which bytes it must have is known if it is a blob of an OCI layout or
// is not compressed; otherwise only the diff ID says.
func (a *Archive) fileLayer(unsafe string, diffID digest.Digest) (Layer, error) {
	name, ok := inside(unsafe)
	if !ok {
		return Layer{}, fmt.Errorf("manifest.json: %.200q is not a name inside the archive", unsafe)
	}
	name, err := a.src.resolve(name)
	if err != nil {
		return Layer{}, err
	}
	f, err := a.src.open(name)
	if err != nil {
		return Layer{}, err
	}
	defer f.Close()
	head := make([]byte, 6)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return Layer{}, fmt.Errorf("read %q: %w", name, err)
	}
	l := Layer{MediaType: v1.MediaTypeImageLayer, Size: f.size, DiffID: diffID}
	switch sniff(head[:n]) {
	case "gzip":
		l.MediaType = v1.MediaTypeImageLayerGzip
	case "zstd":
		l.MediaType = v1.MediaTypeImageLayerZstd
	case "":
		l.Digest = diffID
	}
	if d := blobDigest(name); d != "" {
		l.Digest = d
	}
	l.open = func() (io.ReadCloser, error) {
		if l.Digest != "" {
			return a.openBlob(name, l.Size, l.Digest)
		}
		f, err := a.src.open(name)
		if err != nil {
			return nil, err
		}
		return f, nil
	}
	return l, nil
}

// configDigest returns the digest that the name of a config file promises: ID.json by Docker and Podman, sha256:ID by others,
// blobs/sha256/ID in the form that is an OCI layout too. Empty if it promises none.
func configDigest(name string) digest.Digest {
	if d := blobDigest(name); d != "" {
		return d
	}
	id := strings.TrimPrefix(strings.TrimSuffix(path.Base(name), ".json"), "sha256:")
	return sha256Digest(id)
}

// blobDigest returns the digest of a name below blobs/sha256, empty for another name.
func blobDigest(name string) digest.Digest {
	id, ok := strings.CutPrefix(name, "blobs/sha256/")
	if !ok {
		return ""
	}
	return sha256Digest(id)
}

func sha256Digest(hex string) digest.Digest {
	if d := digest.NewDigestFromEncoded(digest.SHA256, hex); reference.CheckDigest(d) == nil {
		return d
	}
	return ""
}
