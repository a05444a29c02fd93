package kernel

import "testing"

// TestMissing: the machine that runs the tests has every call.
func TestMissing(t *testing.T) {
	if missing, hint := Missing(), Hint(); len(missing) > 0 || hint != "" {
		t.Errorf("missing %v, hint %q", missing, hint)
	}
}
