package engine

import (
	"context"
	"errors"
	"os"
	"strings"

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

// mounts returns the names of mounts that there are, ours or not.
func mounts() (map[string]bool, error) {
	data, err := os.ReadFile("/proc/self/mountinfo") // proc(5): the fifth field is the place, spaces in it as \040
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			found[mountID(unescape.Replace(fields[4]))] = true
		}
	}
	return found, nil
}

// dropLeases ends the leases of containers and mounts that are not there any more.
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
	mounted, err := mounts()
	if err != nil {
		return err
	}
	for _, l := range leases {
		if l.Kind == leaseKind && !e.exists(l.ID) || l.Kind == mountKind && !mounted[l.ID] {
			all = append(all, st.DeleteLease(ctx, l.Kind, l.ID))
		}
	}
	return errors.Join(all...)
}
