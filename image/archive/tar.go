package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// Limits on a tar file's index, which is kept in memory.
const (
	maxMembers   = 1 << 17
	maxNameBytes = 32 << 20
	maxLinks     = 16 // links on the way from one name to a file
)

// member is a tar file's entry.
type member struct {
	offset, size int64  // of the content of a regular file
	link         string // clean name that a link leads to
	kind         memberKind
}

type memberKind byte

const (
	regular   memberKind = iota
	link                 // symbolic or hard, to a name inside
	badLink              // a link that leads out of the archive
	ambiguous            // several entries of one name
	other                // whatever has no bytes to read
)

// tarFile is a source in an indexed tar file.
type tarFile struct {
	f         *os.File
	members   map[string]member
	truncated bool // no end marker: a cut between two entries shows nowhere else
}

func openTar(name string) (source, error) {
	f, size, err := openSeekable(name)
	if err != nil {
		return nil, err
	}
	t := &tarFile{f: f, members: map[string]member{}}
	if err := t.index(size); err != nil {
		f.Close()
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return t, nil
}

// index reads all headers. Contents are skipped by seeking.
func (t *tarFile) index(size int64) error {
	section := io.NewSectionReader(t.f, 0, size)
	tr := tar.NewReader(section)
	names := 0
	for {
		h, err := tr.Next()
		switch {
		case err == io.EOF:
			if len(t.members) == 0 {
				return errors.New("tar archive is empty")
			}
			t.truncated, err = noEndMarker(section)
			return err
		case errors.Is(err, io.ErrUnexpectedEOF):
			return fmt.Errorf("tar archive is truncated after %d bytes: %w", size, err)
		case errors.Is(err, tar.ErrHeader) && len(t.members) == 0:
			return fmt.Errorf("not a tar archive: %w", err)
		case err != nil:
			return fmt.Errorf("tar archive is damaged: %w", err)
		}
		offset, err := section.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		m, err := newMember(h, offset)
		if err != nil {
			return err
		}
		clean, ok := inside(h.Name)
		if !ok || h.Typeflag == tar.TypeDir || h.Typeflag == tar.TypeXGlobalHeader {
			continue // no name that we look for
		}
		if names += len(clean) + len(m.link); len(t.members) >= maxMembers || names > maxNameBytes {
			return fmt.Errorf("tar archive has more than %d entries or %d bytes of names, the limits", maxMembers, maxNameBytes)
		}
		if first, dup := t.members[clean]; dup {
			if first.kind == regular && strings.HasPrefix(clean, "blobs/") {
				continue // verified by its digest, so either will do
			}
			m = member{kind: ambiguous}
		}
		t.members[clean] = m
	}
}

// noEndMarker tells whether the last block that was read is not of zeros.
func noEndMarker(section *io.SectionReader) (bool, error) {
	var block [512]byte
	if _, err := section.Seek(-int64(len(block)), io.SeekCurrent); err != nil {
		return false, err
	}
	_, err := io.ReadFull(section, block[:])
	return block != [512]byte{}, err
}

func newMember(h *tar.Header, offset int64) (member, error) {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return member{}, fmt.Errorf("tar entry %.200q is sparse, which is not supported", h.Name)
		}
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return member{offset: offset, size: h.Size}, nil
	case tar.TypeGNUSparse:
		return member{}, fmt.Errorf("tar entry %.200q is sparse, which is not supported", h.Name)
	case tar.TypeSymlink, tar.TypeLink:
		target := h.Linkname // a hard link's is relative to the archive, a symbolic link's to its own directory
		if h.Typeflag == tar.TypeSymlink && !path.IsAbs(target) {
			target = path.Join(path.Dir(h.Name), target)
		}
		clean, ok := inside(target)
		if !ok {
			return member{kind: badLink, link: h.Linkname}, nil
		}
		return member{kind: link, link: clean}, nil
	}
	return member{kind: other}, nil
}

// inside returns name cleaned, false if it is absolute or leads out of the archive.
func inside(name string) (string, bool) {
	clean := path.Clean(name)
	return clean, clean != "." && clean != ".." && !path.IsAbs(clean) && !strings.HasPrefix(clean, "../")
}

func (t *tarFile) open(name string) (*file, error) {
	m, ok := t.members[name]
	if !ok && t.truncated {
		return nil, fmt.Errorf("%w (the tar archive has no end marker: it seems truncated)", missing(name))
	}
	if !ok {
		return nil, missing(name)
	}
	switch m.kind {
	case link, badLink:
		return nil, fmt.Errorf("open %q: it is a link to %.200q, which is not followed", name, m.link)
	case ambiguous:
		return nil, fmt.Errorf("open %q: the tar archive has several entries of this name", name)
	case other:
		return nil, fmt.Errorf("open %q: not a regular file", name)
	}
	return &file{io.NewSectionReader(t.f, m.offset, m.size), io.NopCloser(nil), m.size}, nil
}

func (t *tarFile) resolve(name string) (string, error) {
	at := name
	for range maxLinks {
		m := t.members[at]
		switch m.kind {
		case link:
			at = m.link
		case badLink:
			return "", fmt.Errorf("open %q: its link to %.200q leads out of the archive", name, m.link)
		default:
			return at, nil
		}
	}
	return "", fmt.Errorf("open %q: more than %d links", name, maxLinks)
}

func (t *tarFile) Close() error { return t.f.Close() }
