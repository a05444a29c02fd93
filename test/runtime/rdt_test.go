package runtime

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// TestIntelRdt is what can be seen without a processor that has resctrl: runtime/rdt and runtime/lifecycle test the rest
// against a directory, because no other file system can pass for resctrl.
func TestIntelRdt(t *testing.T) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(table), " - resctrl ") {
		t.Skipf("this host has resctrl, error %v: the rows are about one without", err)
	}
	row(t, "IR1 update without resctrl changes nothing", func(h *H) {
		b := h.Bundle().Args("sleep", "50").Edit(`linux.resources.pids={"limit":60}`)
		h.Up(b)
		for _, flag := range []string{"--l3-cache-schema=L3:0=f", "--mem-bw-schema=MB:0=50"} {
			h.FailRT("", "update", "--pids-limit", "70", flag, b.ID)
		}
		if got := h.CgroupFile(h.State(b.ID).Pid, "pids", "pids.max"); got != "60" {
			h.Errorf("pids.max is %s, want 60", got)
		}
	})
	row(t, "IR1 statistics of a container without a class of service", func(h *H) {
		b := h.Bundle().Args("sleep", "50")
		h.Up(b)
		var event struct{ Data map[string]json.RawMessage }
		r := h.MustRT("events", "--stats", b.ID)
		if err := json.Unmarshal([]byte(r.Stdout), &event); err != nil || string(event.Data["intel_rdt"]) != "{}" {
			h.Errorf("intel_rdt is %s, error %v", event.Data["intel_rdt"], err)
		}
	})
	row(t, "IR1 features", func(h *H) {
		var f struct {
			Linux struct {
				IntelRdt   struct{ Enabled, Schemata, Monitoring bool }
				NetDevices struct{ Enabled bool }
			}
		}
		r := h.MustRT("features")
		if err := json.Unmarshal([]byte(r.Stdout), &f); err != nil || !f.Linux.IntelRdt.Enabled || !f.Linux.IntelRdt.Schemata || !f.Linux.IntelRdt.Monitoring || !f.Linux.NetDevices.Enabled {
			h.Errorf("features %+v, error %v", f, err)
		}
	})
}
