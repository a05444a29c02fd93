package mutate

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/layer"
)

// Limits on a layer that is compared.
const (
	maxFiles     = 4_000_000
	maxFileBytes = 1 << 40
	maxHeaders   = 512 << 20 // bytes of names, links and extended attributes that are kept
)

// fileEntry is what a layer says of a file.
type fileEntry struct {
	typeflag byte
	mode     int64
	uid, gid int
	owner    string // names of user and group
	size     int64
	mtime    time.Time
	link     string
	device   [2]int64
	records  string // extended headers, sorted
	sum      [sha256.Size]byte
	at       int // position in the archive
	times    int // how often the name is there
}

// contents compares the files of two layers.
func (e *explainer) contents(where string, a, b Side) error {
	filesA, sumA, err := e.files(a)
	if err == nil {
		var filesB map[string]fileEntry
		var sumB [sha256.Size]byte
		if filesB, sumB, err = e.files(b); err == nil {
			return e.compareFiles(where, filesA, filesB, sumA == sumB)
		}
	}
	if errors.Is(err, content.ErrNotFound) {
		return e.add(Difference{where, "another digest, and not both are here to be compared", a.Descriptor.Digest.String(), b.Descriptor.Digest.String()})
	}
	return err
}

// files reads a layer, and tells the digest of its uncompressed bytes.
func (e *explainer) files(s Side) (map[string]fileEntry, [sha256.Size]byte, error) {
	var sum [sha256.Size]byte
	r, err := s.Source.Fetch(e.ctx, s.Descriptor, 0)
	if err != nil {
		return nil, sum, err
	}
	defer r.Close()
	checked, err := content.Verify(r, s.Descriptor)
	if err != nil {
		return nil, sum, err
	}
	stream, _, err := layer.Decompress(checked)
	if err != nil {
		return nil, sum, err
	}
	defer stream.Close()
	hash := sha256.New()
	limited := &io.LimitedReader{R: contextReader{e.ctx, stream}, N: maxFileBytes}
	tee := io.TeeReader(limited, hash)
	files, err := readFiles(tee)
	if err == nil {
		_, err = io.Copy(io.Discard, tee)
	}
	if err == nil && limited.N <= 0 {
		err = fmt.Errorf("more than %d bytes, the limit", int64(maxFileBytes))
	}
	if err != nil {
		return nil, sum, fmt.Errorf("layer %s: %w", s.Descriptor.Digest, err)
	}
	return files, [sha256.Size]byte(hash.Sum(nil)), nil
}

func readFiles(r io.Reader) (map[string]fileEntry, error) {
	files := map[string]fileEntry{}
	kept := 0
	tr := tar.NewReader(r)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return nil, fmt.Errorf("read tar archive: %w", err)
		}
		f := fileEntry{typeflag: h.Typeflag, mode: h.Mode, uid: h.Uid, gid: h.Gid, owner: h.Uname + ":" + h.Gname, size: h.Size,
			mtime: h.ModTime, link: h.Linkname, device: [2]int64{h.Devmajor, h.Devminor}, at: n, times: 1}
		for _, key := range slices.Sorted(maps.Keys(h.PAXRecords)) {
			if strings.HasPrefix(key, "SCHILY.xattr.") {
				f.records += fmt.Sprintf("%s=%q ", strings.TrimPrefix(key, "SCHILY.xattr."), h.PAXRecords[key])
			}
		}
		hash := sha256.New()
		if _, err := io.Copy(hash, tr); err != nil {
			return nil, fmt.Errorf("read tar archive: %w", err)
		}
		f.sum = [sha256.Size]byte(hash.Sum(nil))
		name := path.Clean("/" + h.Name)
		f.times += files[name].times
		files[name] = f
		if kept += len(name) + len(f.link) + len(f.records); len(files) > maxFiles || kept > maxHeaders {
			return nil, fmt.Errorf("more than %d files, or %d bytes of names and attributes, the limits", maxFiles, maxHeaders)
		}
	}
}

// compareFiles compares two layers by their files.
func (e *explainer) compareFiles(where string, a, b map[string]fileEntry, same bool) error {
	names := slices.Sorted(maps.Keys(a))
	before := len(e.found)
	for name := range b {
		if _, ok := a[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		x, inA := a[name]
		y, inB := b[name]
		var err error
		switch {
		case !inA:
			err = e.add(Difference{where + ": " + name, "only one layer has it", "", y.kind()})
		case !inB:
			err = e.add(Difference{where + ": " + name, "only one layer has it", x.kind(), ""})
		default:
			err = e.compareFile(where+": "+name, x, y)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case len(e.found) > before:
		return nil
	case same:
		return e.add(Difference{where, "the same content, although the configurations' diff_ids differ", "", ""})
	}
	order := func(files map[string]fileEntry) []string {
		return slices.SortedFunc(maps.Keys(files), func(x, y string) int { return files[x].at - files[y].at })
	}
	x, y := order(a), order(b)
	for i := range x {
		if i < len(y) && x[i] != y[i] {
			return e.add(Difference{where, "the same files in another order", x[i], y[i]})
		}
	}
	return e.add(Difference{where, "the same files, in another form of tar headers or padding", "", ""})
}

// compareFile compares what two layers say of one file.
func (e *explainer) compareFile(where string, a, b fileEntry) error {
	hex := func(sum [sha256.Size]byte) string { return fmt.Sprintf("sha256:%x", sum) }
	octal := func(mode int64) string { return fmt.Sprintf("%#o", mode) }
	stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
	for _, c := range []struct {
		what, a, b string
	}{
		{"type", a.kind(), b.kind()},
		{"mode", octal(a.mode), octal(b.mode)},
		{"owner", fmt.Sprintf("%d:%d", a.uid, a.gid), fmt.Sprintf("%d:%d", b.uid, b.gid)},
		{"names of owner and group", a.owner, b.owner},
		{"size", fmt.Sprint(a.size), fmt.Sprint(b.size)},
		{"mtime", stamp(a.mtime), stamp(b.mtime)},
		{"link", a.link, b.link},
		{"device", fmt.Sprintf("%d:%d", a.device[0], a.device[1]), fmt.Sprintf("%d:%d", b.device[0], b.device[1])},
		{"extended attributes", a.records, b.records},
		{"content", hex(a.sum), hex(b.sum)},
		{"how often it is there", fmt.Sprint(a.times), fmt.Sprint(b.times)},
	} {
		if c.a != c.b {
			if err := e.add(Difference{where, c.what, c.a, c.b}); err != nil {
				return err
			}
		}
	}
	return nil
}

// kind names an entry's type.
func (f fileEntry) kind() string {
	switch f.typeflag {
	case tar.TypeReg, '\x00':
		return "file"
	case tar.TypeLink:
		return "hard link"
	case tar.TypeSymlink:
		return "symbolic link"
	case tar.TypeChar:
		return "character device"
	case tar.TypeBlock:
		return "block device"
	case tar.TypeDir:
		return "directory"
	case tar.TypeFifo:
		return "FIFO"
	}
	return fmt.Sprintf("type %q", f.typeflag)
}
