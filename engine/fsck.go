package engine

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/reference"
	"github.com/tare-oci/tare/image/store"
)

// FsckOptions says how Fsck works.
type FsckOptions struct {
	Quick    bool // compare sizes and do not read the blobs
	Repair   bool // fetch what is broken from where its name says that it came from
	Progress func(done, total int64)
	Report
}

// Fsck checks the store of images.
func (e *Engine) Fsck(ctx context.Context, o FsckOptions) (*store.FsckReport, error) {
	st, err := e.imageStore()
	if err != nil {
		return nil, err
	}
	reg, err := newRegistries(o.Warn, o.Trace)
	if err != nil {
		return nil, err
	}
	opts := store.FsckOptions{Quick: o.Quick, Repair: o.Repair, Progress: o.Progress}
	opts.Fetch = func(ctx context.Context, d v1.Descriptor, names []string) (io.ReadCloser, error) {
		all := []error{}
		for _, name := range names {
			n, err := reference.ParseName(name)
			if err != nil {
				continue
			}
			src, err := reg.source(n)
			if err != nil {
				all = append(all, err)
				continue
			}
			r, err := src.Fetch(reg.observe(ctx), d, 0)
			if err == nil {
				return r, nil
			}
			all = append(all, err)
		}
		if len(all) == 0 {
			return nil, fmt.Errorf("fetch %s again: %w", d.Digest, errNoRegistry)
		}
		return nil, errors.Join(all...)
	}
	report, err := st.Fsck(ctx, opts)
	if err != nil {
		return nil, err
	}
	return &report, nil
}
