package lifecycle

import (
	"errors"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/tare-oci/tare/runtime/launch"
)

// TestFaultRestore needs a criu that works on the kernel: test/vm runs it.
func TestFaultRestore(t *testing.T) {
	if out, err := exec.Command("criu", "check").CombinedOutput(); err != nil {
		t.Skipf("criu does not work here: %v: %s", err, out)
	}
	for _, c := range faultCases {
		if c.name != "default" && c.name != "userns" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			b := newFaultBundle(t, c)
			images := filepath.Join(t.TempDir(), "images")
			b.up()
			if err := b.Checkpoint(ctx, CheckpointOptions{CriuOptions: CriuOptions{ID: b.create.ID, ImagePath: images}, StatusFD: -1}); err != nil {
				t.Fatal(err)
			}
			b.remove()
			o := RestoreOptions{CriuOptions: CriuOptions{ID: b.create.ID, ImagePath: images}, Bundle: b.create.Bundle, PidFile: b.create.PidFile,
				Detach: true}
			if _, err := b.Restore(ctx, o); err != nil {
				t.Fatal(err)
			}
			b.remove()
			b.each("restore, in the runtime", 11, 1, func(i int) bool {
				b.parentFault = i
				_, err := b.Restore(ctx, o)
				if !errors.Is(err, errFault) {
					t.Errorf("step %d: error %v", i, err)
				}
				return err != nil
			})
			try := func(i int, stop func()) bool {
				_, err := b.Restore(ctx, o)
				stop()
				var step *launch.StepError
				if err == nil {
					b.remove()
				} else if !errors.As(err, &step) {
					t.Errorf("instruction %d: error %v", i-1, err)
				}
				return err != nil
			}
			b.each("restore, the container to compare with", 250, 9, func(i int) bool {
				b.fault = i
				return try(i, func() {})
			})
			b.each("restore, criu's start", 90, 5, func(i int) bool {
				b.criuFault = i
				return try(i, func() { b.criuFault = 0 })
			})
		})
	}
}
