package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

// image is the five-layer image of real files: its blobs are files in the cache directory.
type image struct {
	Layers   []v1.Descriptor
	DiffIDs  []digest.Digest
	Files    int   // entries of all layers
	Unpacked int64 // bytes of all layers' tar streams
	dir      string
}

// roots are where the real files of each layer are taken from, until the layer is large enough: many small files,
// libraries, sources, programs, and what there is.
var roots = [][]string{
	{"/usr/share"},
	{"/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"},
	{"/usr/local/go/src", "/usr/local/go/pkg", "/usr/lib/go-1.19", "/usr/include", "/usr/lib/python3", "/usr/lib/gcc"},
	{"/usr/bin"},
	{"/usr/sbin", "/usr/lib/chromium", "/usr/lib/podman", "/usr/lib/git-core", "/usr/libexec", "/usr/local/go/bin", "/usr/lib"},
}

// maxFile keeps one huge program from being a whole layer.
const maxFile = 48 << 20

var errFull = errors.New("layer is large enough")

// loadImage makes the image, or takes what an earlier benchmark made.
func loadImage(ctx context.Context, dir string, mib int64) (image, error) {
	img := image{dir: dir}
	index := filepath.Join(dir, fmt.Sprintf("image-%d.json", mib))
	if data, err := os.ReadFile(index); err == nil && json.Unmarshal(data, &img) == nil && len(img.Layers) == len(roots) {
		return img, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return img, err
	}
	taken := map[string]bool{}
	for i, from := range roots {
		fmt.Fprintf(os.Stderr, "making layer %d of %d MiB from %v\n", i+1, mib, from)
		if err := img.addLayer(ctx, from, mib<<20, taken); err != nil {
			return img, err
		}
	}
	data, err := json.Marshal(img)
	if err != nil {
		return img, err
	}
	return img, os.WriteFile(index, data, 0o644)
}

// counter counts and hashes what is written through it.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

func (img *image) addLayer(ctx context.Context, from []string, size int64, taken map[string]bool) error {
	f, err := os.CreateTemp(img.dir, "layer")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	stored, plain := sha256.New(), sha256.New()
	out := &counter{w: io.MultiWriter(f, stored)}
	z := gzip.NewWriter(out)
	in := &counter{w: io.MultiWriter(z, plain)}
	t := tar.NewWriter(in)
	written := map[string]bool{"/": true}
	for _, root := range from {
		if err := img.addParents(t, filepath.Dir(root), written); err != nil {
			return err
		}
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || ctx.Err() != nil {
				return err
			}
			if out.n >= size {
				return errFull
			}
			if taken[path] {
				return nil
			}
			taken[path] = true
			return img.addFile(t, path, d)
		})
		if err != nil && !errors.Is(err, errFull) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if err := errors.Join(t.Close(), z.Close()); err != nil {
		return err
	}
	d := v1.Descriptor{MediaType: v1.MediaTypeImageLayerGzip, Size: out.n, Digest: digest.NewDigest(digest.SHA256, stored)}
	img.Layers = append(img.Layers, d)
	img.DiffIDs = append(img.DiffIDs, digest.NewDigest(digest.SHA256, plain))
	img.Unpacked += in.n
	return os.Rename(f.Name(), img.blob(d))
}

func (img *image) blob(d v1.Descriptor) string { return filepath.Join(img.dir, d.Digest.Encoded()) }

// addParents writes the directories above a layer's files once, as the builders of images do.
func (img *image) addParents(t *tar.Writer, path string, written map[string]bool) error {
	if written[path] {
		return nil
	}
	written[path] = true
	if err := img.addParents(t, filepath.Dir(path), written); err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return img.addFile(t, path, fs.FileInfoToDirEntry(info))
}

// addFile writes what is at path, if it is a file, a directory or a link.
func (img *image) addFile(t *tar.Writer, path string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	link := ""
	switch {
	case info.Mode().IsRegular() && info.Size() <= maxFile, info.IsDir():
	case info.Mode()&fs.ModeSymlink != 0:
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	default:
		return nil
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name = path[1:]
	if info.IsDir() {
		h.Name += "/"
	}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	img.Files++
	if !info.Mode().IsRegular() {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyN(t, f, info.Size())
	return err
}

// documents returns the image's configuration and manifest.
func (img *image) documents() (config, manifest []byte, err error) {
	layers, diffIDs := append([]v1.Descriptor{}, img.Layers...), append([]digest.Digest{}, img.DiffIDs...) // never null
	c := v1.Image{Platform: v1.Platform{OS: "linux", Architecture: runtime.GOARCH}, Config: v1.ImageConfig{Cmd: []string{"/usr/bin/true"}}}
	c.RootFS = v1.RootFS{Type: "layers", DiffIDs: diffIDs}
	if config, err = json.Marshal(c); err != nil {
		return nil, nil, err
	}
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Layers: layers,
		Config: v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))}}
	manifest, err = json.Marshal(m)
	return config, manifest, err
}

// push puts the image into the registry at the address, as bench:1.
func (img *image) push(ctx context.Context, address string) error {
	config, manifest, err := img.documents()
	if err != nil {
		return err
	}
	base := "http://" + address + "/v2/bench/"
	if err := pushBlob(ctx, base, digest.FromBytes(config), bytes.NewReader(config), int64(len(config))); err != nil {
		return err
	}
	for _, d := range img.Layers {
		f, err := os.Open(img.blob(d))
		if err != nil {
			return err
		}
		err = pushBlob(ctx, base, d.Digest, f, d.Size)
		f.Close()
		if err != nil {
			return err
		}
	}
	_, err = put(ctx, "PUT", base+"manifests/1", v1.MediaTypeImageManifest, bytes.NewReader(manifest), int64(len(manifest)), 201)
	return err
}

// pushBlob is a monolithic upload: POST, then PUT to where it says.
func pushBlob(ctx context.Context, base string, d digest.Digest, r io.Reader, size int64) error {
	resp, err := put(ctx, "POST", base+"blobs/uploads/", "", nil, 0, 202)
	if err != nil {
		return err
	}
	where, err := resp.Location()
	if err != nil {
		return err
	}
	q := where.Query()
	q.Set("digest", d.String())
	where.RawQuery = q.Encode()
	_, err = put(ctx, "PUT", where.String(), "application/octet-stream", r, size, 201)
	return err
}
