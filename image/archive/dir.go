package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/manifest"
)

// The files of a dir:, as github.com/containers/image's directory transport has them: blobs and the entries of an index are
// named by the hexadecimal digits of their digests, the document at the top manifest.json.
const (
	dirVersion     = "version"
	dirManifest    = "manifest.json"
	dirSuffix      = ".manifest.json"
	dirVersionHead = "Directory Transport Version: "
	dirVersionText = dirVersionHead + "1.1\n"
)

// dirName returns the name of the file with the bytes of d.
func dirName(d v1.Descriptor) string {
	if manifest.IsDocument(d.MediaType) {
		return d.Digest.Encoded() + dirSuffix
	}
	return d.Digest.Encoded()
}

// checkDir reads the manifest.json of a dir:, which begins everything there.
func (a *Archive) checkDir() error {
	switch raw, err := a.readFile(dirVersion, 1<<10); {
	case errors.Is(err, fs.ErrNotExist): // the first version did not write it
	case err != nil:
		return err
	case !strings.HasPrefix(string(raw), dirVersionHead):
		return fmt.Errorf("%s: %.64q is not %q", dirVersion, raw, strings.TrimSpace(dirVersionText))
	}
	raw, err := a.readFile(dirManifest, manifest.MaxManifest)
	if errors.Is(err, fs.ErrNotExist) && a.exists(v1.ImageLayoutFile) == nil {
		return fmt.Errorf("%w; it holds an OCI layout: try oci:%s", err, a.ref.Path)
	}
	if err != nil {
		return err
	}
	mediaType, err := documentType(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", dirManifest, err)
	}
	a.top = &v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	return nil
}

// dirImage finds the image of a dir:.
func (a *Archive) dirImage(ctx context.Context, platform manifest.Platform) (*Image, error) {
	return a.among(ctx, []v1.Descriptor{*a.top}, platform)
}
