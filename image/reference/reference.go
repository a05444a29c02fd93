// Package reference parses what names an image on the command line, and the grammars inside it: transports, names, tags and
// digests. It reads nothing; image/archive opens what a Reference names.
package reference

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Transport is the way in which an image's bytes are kept.
type Transport string

// The transports that Parse knows.
const (
	OCI           Transport = "oci"            // directory with an OCI image layout
	OCIArchive    Transport = "oci-archive"    // tar file of an OCI image layout
	DockerArchive Transport = "docker-archive" // tar file written by docker save
)

const known = "oci:DIR[:REF], oci-archive:FILE[:REF] and docker-archive:FILE[:REF]"

// ErrRegistry is in the error of Parse when the text names an image in a registry.
var ErrRegistry = errors.New("pulling from registries is not there yet")

// Reference names an image in a directory or file.
type Reference struct {
	Transport Transport
	Path      string // of the directory or file, without a colon
	Name      string // which image there; empty: the only one
	Index     int    // which image there, by position from 0; -1: not by position
}

// Parse parses TRANSPORT:PATH, TRANSPORT:PATH:NAME or TRANSPORT:PATH:@INDEX. The first colon after the transport ends the
// path, as in skopeo. For docker-archive, NAME is a name by ParseName without a digest; an OCI layout has any text there.
func Parse(s string) (Reference, error) {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return Reference{}, fmt.Errorf("image reference %.300q: control characters", s)
	}
	transport, rest, ok := strings.Cut(s, ":")
	r := Reference{Transport: Transport(transport), Index: -1}
	if !ok || r.Transport != OCI && r.Transport != OCIArchive && r.Transport != DockerArchive {
		return Reference{}, unknownTransport(s)
	}
	r.Path, r.Name, ok = strings.Cut(rest, ":")
	switch {
	case r.Path == "":
		return Reference{}, fmt.Errorf("image reference %.300q: path is missing after %s:", s, transport)
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

// String returns the text that Parse reads as r.
func (r Reference) String() string {
	s := string(r.Transport) + ":" + r.Path
	switch {
	case r.Index >= 0:
		s += ":@" + strconv.Itoa(r.Index)
	case r.Name != "":
		s += ":" + r.Name
	}
	return s
}

// unknownTransport says what s probably is: a name in a registry, another tool's transport, or a path without one.
func unknownTransport(s string) error {
	transport, rest, ok := strings.Cut(s, ":")
	if ok && transport == "docker" && strings.HasPrefix(rest, "//") {
		return fmt.Errorf("image %.300q: %w; use %s", s, ErrRegistry, known)
	}
	switch transport {
	case "dir", "docker-daemon", "containers-storage", "ostree", "sif", "tarball", "docker":
	default:
		if _, err := ParseName(s); err == nil {
			return fmt.Errorf("image %.300q: %w; use %s", s, ErrRegistry, known)
		}
		ok = ok && strings.Trim(transport, lower+digits+"-") == ""
	}
	if !ok {
		return fmt.Errorf("image reference %.300q: transport is missing; known are %s", s, known)
	}
	return fmt.Errorf("image reference %.300q: unknown transport %q; known are %s", s, transport, known)
}
