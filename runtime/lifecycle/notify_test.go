package lifecycle

import (
	"errors"
	"path/filepath"
	"testing"
)

// TestFaultNotify: the container's socket and its directory go when create or run fails.
func TestFaultNotify(t *testing.T) {
	b := newFaultBundle(t, faultCase{"notify", func(*faultBundle) {}})
	t.Setenv("NOTIFY_SOCKET", filepath.Join(b.dir, "manager"))
	if err := b.Create(ctx, b.create); err != nil { // makes the mount point, which stays
		t.Fatal(err)
	}
	b.remove()
	n, parent := b.steps(true)
	b.each("create", n, 23, func(i int) bool {
		b.fault = i
		err := b.Create(ctx, b.create)
		if err != nil {
			checkSentence(t, err, i)
			return true
		}
		b.remove()
		return false
	})
	o := RunOptions{CreateOptions: b.create, Detach: true}
	b.each("create and run, in the runtime", parent, 1, func(i int) bool {
		b.parentFault = i
		_, err := b.Run(ctx, o)
		if e := b.Create(ctx, b.create); !errors.Is(err, errFault) || !errors.Is(e, errFault) {
			t.Errorf("step %d: errors %v, %v", i, err, e)
		}
		return err != nil
	})
}
