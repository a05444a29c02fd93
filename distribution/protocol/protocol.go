// Package protocol has what both sides of the distribution-spec share: paths, headers, ranges, error documents and limits. It
// reads and writes texts only; nothing here talks to anybody. What it parses comes from a stranger and is bounded.
package protocol

import (
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

// Names of headers, in the form that net/http gives them, so that they can index an http.Header. Names of headers are
// compared without regard to case on the wire.
const (
	HeaderContentDigest  = "Docker-Content-Digest"
	HeaderUploadUUID     = "Docker-Upload-Uuid"
	HeaderAPIVersion     = "Docker-Distribution-Api-Version"
	HeaderSubject        = "Oci-Subject"
	HeaderTag            = "Oci-Tag"
	HeaderFiltersApplied = "Oci-Filters-Applied"
	HeaderChunkMinLength = "Oci-Chunk-Min-Length"
	HeaderNamespace      = "Oci-Namespace"
	HeaderWarning        = "Warning"
	HeaderLink           = "Link"
	HeaderRetryAfter     = "Retry-After"
)

// APIVersion is the value of HeaderAPIVersion, which clients of Docker look for.
const APIVersion = "registry/2.0"

// Names of query parameters.
const (
	QueryDigest          = "digest"           // of the blob that a POST or PUT completes
	QueryDigestAlgorithm = "digest-algorithm" // of the session that a POST opens
	QueryMount           = "mount"            // digest of a blob to mount
	QueryFrom            = "from"             // repository to mount from
	QueryN               = "n"                // entries of a page
	QueryLast            = "last"             // the entry before a page
	QueryArtifactType    = "artifactType"     // filter of referrers
	QueryTag             = "tag"              // tags of a manifest pushed by digest
	QueryNamespace       = "ns"               // source host, for a proxy
)

// Limits on what the other side sends. A registry may allow larger manifests than MaxManifest, which both sides are expected
// to support.
const (
	MaxManifest   = 4 << 20  // bytes of a manifest or an index
	MaxErrorBody  = 64 << 10 // bytes of an error document
	MaxErrors     = 32       // errors of a document that are kept
	MaxList       = 8 << 20  // bytes of a page of tags, repositories or referrers
	MaxWarnings   = 4096     // bytes of the warnings of one response
	MaxHeaderText = 8 << 10  // bytes of a Link or Location header that is looked at
)

// OctetStream is the media type of blobs in requests and responses.
const OctetStream = "application/octet-stream"

// ManifestTypes are the media types for the Accept header of a manifest's pull: OCI's and Docker's index and manifest.
func ManifestTypes() []string {
	return []string{
		v1.MediaTypeImageIndex, v1.MediaTypeImageManifest,
		"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json",
	}
}

// MediaType cuts the parameters from a Content-Type header, which both sides should ignore, and the space around.
func MediaType(contentType string) string {
	t, _, _ := strings.Cut(contentType, ";")
	return strings.TrimSpace(t)
}

// ReferrersTag returns the tag under which a registry without the referrers API keeps the index of the referrers of d:
// distribution-spec, "Referrers Tag Schema".
func ReferrersTag(d digest.Digest) string {
	alg, encoded, _ := strings.Cut(string(d), ":")
	tag := []byte(alg[:min(len(alg), 32)] + "-" + encoded[:min(len(encoded), 64)])
	for i, c := range tag {
		if !isAlnum(c) && c != '_' && c != '.' && c != '-' {
			tag[i] = '-'
		}
	}
	return string(tag)
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
