// Package reference parses what names an image on the command line, and the grammars inside it: transports, names, tags and
// digests. It reads nothing; others open what a Reference names.
package reference

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Transport is the way in which an image's bytes are kept.
type Transport string

// The transports that Parse knows.
const (
	Docker        Transport = "docker"         // repository of a registry
	OCI           Transport = "oci"            // directory with an OCI image layout
	OCIArchive    Transport = "oci-archive"    // tar file of an OCI image layout
	DockerArchive Transport = "docker-archive" // tar file written by docker save
	Dir           Transport = "dir"            // directory with the files of one image, as skopeo writes it
	Store         Transport = "store"          // tare's own store
)

const known = "docker://NAME, store:NAME, oci:DIR[:REF], oci-archive:FILE[:REF], docker-archive:FILE[:REF] and dir:DIR"

// ErrNoTransport is in the error of Parse when the text is a name without a transport.
var ErrNoTransport = errors.New("transport is missing")

// Reference names an image in a registry, in the store, in a directory or in a file.
type Reference struct {
	Transport Transport
	Path      string // of the directory or file, without a colon unless it is of Dir; empty for Docker and Store
	// Name is which image there; empty: the only one. For Docker it is a name by ParseName in its full form. For Store it is
	// the text that was given: a name, or an image's or a manifest's digest, or the beginning of its hexadecimal digits.
	Name  string
	Index int // which image there, by position from 0; -1: not by position
}

// Parse parses docker://NAME, store:NAME, dir:PATH and, for the other transports, TRANSPORT:PATH, TRANSPORT:PATH:NAME and
// TRANSPORT:PATH:@INDEX. The first colon after the transport ends the path, as in skopeo. For docker-archive, NAME is a name by
// ParseName without a digest; an OCI layout has any text there.
func Parse(s string) (Reference, error) {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return Reference{}, fmt.Errorf("image reference %.300q: control characters", s)
	}
	transport, rest, ok := strings.Cut(s, ":")
	r := Reference{Transport: Transport(transport), Index: -1}
	if !ok {
		return Reference{}, unknownTransport(s)
	}
	switch r.Transport {
	case OCI, OCIArchive, DockerArchive:
		return r.parsePath(s, rest)
	case Dir:
		if r.Path = rest; rest == "" {
			return Reference{}, fmt.Errorf("image reference %.300q: path is missing after dir:", s)
		}
		return r, nil
	case Store:
		if r.Name = rest; checkStoreName(rest) != nil {
			return Reference{}, checkStoreName(rest)
		}
		return r, nil
	case Docker:
		rest, ok = strings.CutPrefix(rest, "//")
		if !ok {
			return Reference{}, unknownTransport(s)
		}
		n, err := ParseName(rest)
		r.Name = n.String()
		if err != nil {
			return Reference{}, err
		}
		return r, nil
	}
	return Reference{}, unknownTransport(s)
}

// ParseImage parses what Parse does, and takes a text without a transport for the name or the digest of an image in tare's
// store.
func ParseImage(s string) (Reference, error) {
	r, err := Parse(s)
	if errors.Is(err, ErrNoTransport) && checkStoreName(s) == nil {
		return Reference{Transport: Store, Name: s, Index: -1}, nil
	}
	return r, err
}

// parsePath parses what follows the transport where an archive or a layout is named.
func (r Reference) parsePath(s, rest string) (Reference, error) {
	var ok bool
	r.Path, r.Name, ok = strings.Cut(rest, ":")
	switch {
	case r.Path == "":
		return Reference{}, fmt.Errorf("image reference %.300q: path is missing after %s:", s, r.Transport)
	case ok && r.Name == "":
		return Reference{}, fmt.Errorf("image reference %.300q: name is missing after the path", s)
	}
	if at, isIndex := strings.CutPrefix(r.Name, "@"); isIndex {
		n, err := strconv.ParseUint(at, 10, 31)
		if err != nil {
			return Reference{}, fmt.Errorf("image reference %.300q: want a position from 0 after @", s)
		}
		r.Name, r.Index = "", int(n)
	}
	if r.Transport == DockerArchive && r.Name != "" {
		if n, err := ParseName(r.Name); err != nil {
			return Reference{}, fmt.Errorf("image reference %.300q: %w", s, err)
		} else if n.Digest != "" {
			return Reference{}, fmt.Errorf("image reference %.300q: a docker-archive has names with tags, not with digests", s)
		}
	}
	return r, nil
}

// checkStoreName checks a name as ParseName does, or a digest, or the beginning of one.
func checkStoreName(s string) error {
	if alg, hex, ok := strings.Cut(s, ":"); ok && (alg == "sha256" || alg == "sha512") && len(hex) >= 12 && isHex(hex) {
		return nil
	}
	_, err := ParseName(s)
	return err
}

func isHex(s string) bool { return strings.Trim(s, "abcdef"+digits) == "" }

// String returns the text that Parse reads as r.
func (r Reference) String() string {
	switch r.Transport {
	case Docker:
		return "docker://" + r.Name
	case Store:
		return "store:" + r.Name
	}
	s := string(r.Transport) + ":" + r.Path
	switch {
	case r.Index >= 0:
		s += ":@" + strconv.Itoa(r.Index)
	case r.Name != "":
		s += ":" + r.Name
	}
	return s
}

// unknownTransport says what s probably is: a name without a transport, another tool's transport, or a path without one.
func unknownTransport(s string) error {
	transport, _, ok := strings.Cut(s, ":")
	if !slices.Contains([]string{"docker-daemon", "containers-storage", "ostree", "sif", "tarball", "docker"}, transport) || !ok {
		ok = ok && strings.Trim(transport, lower+digits+"-") == ""
		if checkStoreName(s) == nil {
			return fmt.Errorf("image %.300q: %w: say docker://%[1]s for the registry's or store:%[1]s for the local one", s, ErrNoTransport)
		}
	}
	if !ok {
		return fmt.Errorf("image reference %.300q: %w; known are %s", s, ErrNoTransport, known)
	}
	return fmt.Errorf("image reference %.300q: unknown transport %q; known are %s", s, transport, known)
}
