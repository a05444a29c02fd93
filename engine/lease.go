package engine

import (
	"context"
	"errors"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/image/store"
)

// leaseKind is what the store calls what containers hold.
const leaseKind = "container"

// lease makes the store keep what the container is made from: its image, and its unpacked layers. A volatile lease may be
// gone after a power cut, which ends the container too.
func (c *Container) lease(volatile bool) error {
	st, err := c.engine.imageStore()
	if err != nil {
		return err
	}
	info := store.LeaseInfo{Kind: leaseKind, ID: c.record.ID, Layers: c.record.Layers, Volatile: volatile || c.record.AutoRemove}
	if d := c.record.ImageDigest; d != "" {
		info.Digests = []digest.Digest{d}
	}
	return st.SaveLease(context.Background(), info)
}

// unlease takes the container's word for its image back.
func (c *Container) unlease() error {
	st, err := c.engine.imageStore()
	if err != nil {
		return err
	}
	return st.DeleteLease(context.Background(), leaseKind, c.record.ID)
}

// dropLeases ends the leases of containers that are not there any more.
func (e *Engine) dropLeases(ctx context.Context) error {
	st, err := e.imageStore()
	if err != nil {
		return err
	}
	lock, err := e.lock() // nobody makes or removes a container meanwhile
	if err != nil {
		return err
	}
	defer lock.Release()
	leases, err := st.Leases(ctx)
	if err != nil {
		return err
	}
	var all []error
	for _, l := range leases {
		if l.Kind == leaseKind && !e.exists(l.ID) {
			all = append(all, st.DeleteLease(ctx, leaseKind, l.ID))
		}
	}
	return errors.Join(all...)
}
