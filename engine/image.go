package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/archive"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/reference"
	"github.com/tare-oci/tare/image/snapshot"
	"github.com/tare-oci/tare/internal/atomicfile"
)

// image is what a container needs to know of its image, as it is kept in ROOT/images. An image file of gigabytes is read
// once: as long as the file that names its content is the same by device, inode, size and both times, it is taken to hold
// the same. The change time cannot be set by a user; so the trust is in the kernel's clock, and in the root directory being
// writable to its owner only. A file that was changed so recently that the clock might not tell a second change is not kept.
type image struct {
	ID       string          `json:"id"` // digest of the configuration
	Config   v1.Image        `json:"config"`
	DiffIDs  []digest.Digest `json:"diffIds"` // the lowest layer first
	Platform string          `json:"platform"`
	Identity []fileIdentity  `json:"identity"`

	key    string
	source reference.Reference
	unseen bool // its file has not been read this time

	// Of an image in the store:
	name   string           // full name; empty if it has none or was named otherwise
	root   digest.Digest    // of the index or manifest
	layers []snapshot.Layer // the lowest first; nil for an image in a file
}

// fileIdentity tells one state of a file from another.
type fileIdentity struct {
	Path  string `json:"path"`
	Dev   uint64 `json:"dev"`
	Ino   uint64 `json:"ino"`
	Size  int64  `json:"size"`
	MTime int64  `json:"mtime"` // nanoseconds since 1970
	CTime int64  `json:"ctime"`
}

// settle is how old a file's last change has to be before its times are taken to tell it from the next one: file systems
// count time in the scheduler's ticks of up to 10 ms, some in seconds.
const settle = 2 * time.Second

// image finds what o.Source names, in the store, in a registry if it is not there, or in a file: from memory if that has not
// changed. The image may not be unpacked yet.
func (e *Engine) image(ctx context.Context, o *RunOptions) (*image, error) {
	source := o.Source
	ref, err := reference.ParseImage(source)
	if err != nil {
		return nil, err
	}
	switch ref.Transport {
	case reference.Store, reference.Docker:
		return e.storeImage(ctx, ref.Name, o)
	case reference.Dir:
		return nil, fmt.Errorf("image %s: images are not run from a dir: directory; copy it into the store first (tare copy)", source)
	}
	if o.Platform != nil {
		return nil, fmt.Errorf("image %s: a platform is chosen for images of registries and the store only; copy it into the store first (tare copy)", source)
	}
	if ref.Path, err = filepath.Abs(ref.Path); err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(ref.String()))
	key := hex.EncodeToString(sum[:])
	identity, err := identify(ref)
	if err != nil {
		return nil, fmt.Errorf("open image %s: %w", source, err)
	}
	if img := e.remembered(key, identity); img != nil {
		img.key, img.source, img.unseen = key, ref, true
		return img, nil
	}
	return e.readImage(ctx, ref, key, identity)
}

func (e *Engine) readImage(ctx context.Context, ref reference.Reference, key string, identity []fileIdentity) (*image, error) {
	a, err := archive.Open(ref)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	found, err := a.Image(ctx, manifest.Platform{})
	if err != nil {
		return nil, err
	}
	img := &image{ID: found.ID.String(), Config: found.Config, Platform: manifest.Host().String(), Identity: identity,
		key: key, source: ref}
	for _, l := range found.Layers {
		img.DiffIDs = append(img.DiffIDs, l.DiffID)
	}
	return img, nil
}

// identify describes the files that decide what ref holds: the archive, or the index of a layout, whose other files are
// named by their content.
func identify(ref reference.Reference) ([]fileIdentity, error) {
	path := ref.Path
	if ref.Transport == reference.OCI {
		path = filepath.Join(path, v1.ImageIndexFile)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	id := fileIdentity{Path: path, Size: info.Size(), MTime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id.Dev, id.Ino = uint64(st.Dev), st.Ino //nolint:unconvert // widths differ by port
		id.CTime = time.Unix(int64(st.Ctim.Sec), int64(st.Ctim.Nsec)).UnixNano()
	}
	return []fileIdentity{id}, nil
}

// remembered returns the image of the key if it was unpacked from files that are still the same, else nil.
func (e *Engine) remembered(key string, identity []fileIdentity) *image {
	data, err := os.ReadFile(e.path("images", key+".json"))
	if err != nil {
		return nil
	}
	img := &image{}
	if json.Unmarshal(data, img) != nil || img.Platform != manifest.Host().String() ||
		len(img.Identity) != 1 || img.Identity[0] != identity[0] {
		return nil
	}
	return img
}

// remember keeps an unpacked image, unless its file has changed since it was identified or has changed too recently.
func (e *Engine) remember(img *image) error {
	now, err := identify(img.source)
	if err != nil || now[0] != img.Identity[0] {
		return nil //nolint:nilerr // somebody replaces the file: what we unpacked is verified, but not to be remembered
	}
	if time.Since(time.Unix(0, max(now[0].CTime, now[0].MTime))) < settle {
		return nil
	}
	data, err := json.Marshal(img)
	if err != nil {
		return err
	}
	return atomicfile.Write(e.path("images", img.key+".json"), data, 0o600, atomicfile.NoSync)
}
