package launch

import (
	"testing"

	"github.com/tare-oci/tare/runtime/plan"
)

// TestDevtmpfsIsTheHosts: all mounts of devtmpfs are one file system. No other test mounts it on /dev: a failure would remove the
// host's nodes.
func TestDevtmpfsIsTheHosts(t *testing.T) {
	for _, test := range []struct {
		op  plan.Op
		own bool
	}{
		{plan.Mount{Type: "tmpfs", Dest: "/dev", At: plan.OnDev}, true},
		{plan.Mount{Type: "devtmpfs", Dest: "/dev", At: plan.OnDev}, false},
		{plan.Bind{Source: "/dev", Dest: "/dev", At: plan.OnDev}, false},
	} {
		mem, err := newArena()
		if err != nil {
			t.Fatal(err)
		}
		p := newProgram(mem, &Resources{})
		for _, op := range []plan.Op{plan.Mount{Type: "tmpfs", Dest: "/dev", At: plan.OnDev}, test.op} {
			if err := p.lower(op); err != nil {
				t.Fatal(err)
			}
		}
		last := p.code[len(p.code)-1]
		for i := len(p.code) - 1; last.kind != doMark && last.kind != doUnmark; i-- {
			last = p.code[i]
		}
		if own := p.places[markDev] != 0; own != test.own || (last.kind == doMark) != test.own {
			t.Errorf("%s: taken as the container's own: %v", test.op.What(), own)
		}
		mem.free()
	}
}
