package protocol

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/image/reference"
)

// Kind is which of the API's endpoints a path names.
type Kind uint8

// The endpoints, by distribution-spec "Endpoints" and the catalog that Docker's registry has beside them.
const (
	Base      Kind = iota + 1 // /v2/                          end-1
	Catalog                   // /v2/_catalog                  Docker's
	Blob                      // /v2/NAME/blobs/DIGEST         end-2, end-10
	Manifest                  // /v2/NAME/manifests/REFERENCE  end-3, end-7, end-9
	Uploads                   // /v2/NAME/blobs/uploads/       end-4, end-11
	Upload                    // /v2/NAME/blobs/uploads/ID     end-5, end-6, end-13, end-14
	Tags                      // /v2/NAME/tags/list            end-8
	Referrers                 // /v2/NAME/referrers/DIGEST     end-12
)

// Path is a path of the API, taken apart.
type Path struct {
	Kind Kind
	Name string // of the repository, valid by CheckName; empty for Base and Catalog
	// UnsafeReference is the last part of the paths that end in capitals above, as the client wrote it: a digest, a tag or a
	// session, not checked. It has no slash.
	UnsafeReference string
}

// ErrNotAPI is the error of ParsePath for a path that names no endpoint.
var ErrNotAPI = errors.New("not a path of the registry's API")

// ParsePath takes the (unescaped) path of a request apart. The error is ErrNotAPI, or, for an endpoint in a repository that
// cannot be, that of CheckName. A repository's name may have parts like blobs, so the path is read from its end.
func ParsePath(path string) (Path, error) {
	rest, ok := strings.CutPrefix(path, "/v2/")
	switch {
	case path == "/v2" || ok && rest == "":
		return Path{Kind: Base}, nil
	case !ok:
		return Path{}, ErrNotAPI
	case rest == "_catalog":
		return Path{Kind: Catalog}, nil
	}
	if name, ok := strings.CutSuffix(strings.TrimSuffix(rest, "/"), "/blobs/uploads"); ok {
		return named(Path{Kind: Uploads, Name: name})
	}
	if name, ok := strings.CutSuffix(rest, "/tags/list"); ok {
		return named(Path{Kind: Tags, Name: name})
	}
	i := strings.LastIndexByte(rest, '/')
	if i < 0 {
		return Path{}, ErrNotAPI
	}
	before, last := rest[:i], rest[i+1:]
	for _, end := range [...]struct {
		infix string
		kind  Kind
	}{{"/manifests", Manifest}, {"/blobs/uploads", Upload}, {"/blobs", Blob}, {"/referrers", Referrers}} {
		if name, ok := strings.CutSuffix(before, end.infix); ok && last != "" {
			return named(Path{Kind: end.kind, Name: name, UnsafeReference: last})
		}
	}
	return Path{}, ErrNotAPI
}

func named(p Path) (Path, error) {
	if err := CheckName(p.Name); err != nil {
		return Path{}, err
	}
	return p, nil
}

// CheckName checks the name of a repository by the grammar of distribution-spec "Pulling manifests". It has at most 251 bytes:
// many clients allow 255 for it together with a host.
func CheckName(unsafe string) error {
	if len(unsafe) <= maxName && plainName(unsafe) {
		return nil
	}
	if !strings.ContainsAny(unsafe, ":@") {
		if _, err := reference.ParseName("r.x/" + unsafe); err == nil {
			return nil
		}
	}
	return fmt.Errorf("repository name %.260q: want at most 251 of lower-case letters, digits, and single . _ - between them, "+
		"with / between its parts", unsafe)
}

const maxName = 251

// plainName reports whether no part of the grammar needs a closer look: letters and digits, and single separators between
// them. A server checks a name with every request.
func plainName(s string) bool {
	separator := true
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			separator = false
		case (c == '/' || c == '-' || c == '.' || c == '_') && !separator:
			separator = true
		default:
			return false
		}
	}
	return !separator
}

// BlobPath is the path of a blob in a repository.
func BlobPath(name string, d digest.Digest) string { return "/v2/" + name + "/blobs/" + string(d) }

// ManifestPath is the path of a manifest in a repository; ref is a tag or a digest.
func ManifestPath(name, ref string) string { return "/v2/" + name + "/manifests/" + ref }

// UploadsPath is the path where uploads to a repository begin.
func UploadsPath(name string) string { return "/v2/" + name + "/blobs/uploads/" }

// UploadPath is the path of an upload that is under way on our own server. To a client the Location of another registry's
// session is opaque.
func UploadPath(name, session string) string { return UploadsPath(name) + session }

// TagsPath is the path of the list of a repository's tags.
func TagsPath(name string) string { return "/v2/" + name + "/tags/list" }

// ReferrersPath is the path of the referrers of a manifest.
func ReferrersPath(name string, d digest.Digest) string {
	return "/v2/" + name + "/referrers/" + string(d)
}

// WithQuery returns location with a parameter added. A query that it already has stays as it is.
func WithQuery(location, key, value string) string {
	sep := "?"
	if strings.Contains(location, "?") {
		sep = "&"
	}
	return location + sep + url.QueryEscape(key) + "=" + url.QueryEscape(value)
}
