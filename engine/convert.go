package engine

import (
	"context"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/mutate"
	"github.com/tare-oci/tare/image/reference"
)

// Convert makes an image whose layers are those of another one in another compression, and gives it a name, which may be the
// same.
func (e *Engine) Convert(ctx context.Context, text, name string, to layer.Compression) (d, id digest.Digest, err error) {
	if _, err := reference.ParseName(name); err != nil {
		return "", "", err
	}
	found, err := e.lookup(ctx, text)
	if err != nil {
		return "", "", err
	}
	st, err := e.imageStore()
	if err != nil {
		return "", "", err
	}
	return e.make(ctx, st, name, func(ctx context.Context) (v1.Descriptor, error) {
		return mutate.Convert(ctx, st, st, found.root, to)
	})
}
