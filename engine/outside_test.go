package engine

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tare-oci/tare/distribution/client"
	"github.com/tare-oci/tare/distribution/transfer"
	"github.com/tare-oci/tare/image/layer"
)

func TestReadLimits(t *testing.T) {
	t.Setenv(LimitsVariable, "layer.Entries=8,graph.Depth=-1 registry.Stall=9, registry.Pages=-1")
	o, err := readLimits()
	if err != nil || o.layer.Entries != 8 || o.graph.Depth != -1 || o.registry.Stall != 9*time.Second || o.registry.Pages < 1<<29 {
		t.Errorf("%+v, %v", o, err)
	}
	for _, bad := range []string{"layer.Entries", "layer.Entries=0", "layer.Entries=-2", "layer.Entries=x", "layer.Nothing=1", "Entries=1"} {
		t.Setenv(LimitsVariable, bad)
		if _, err := readLimits(); err == nil || !strings.Contains(err.Error(), LimitsVariable) {
			t.Errorf("%s: error %v", bad, err)
		}
	}
}

// Every limit can be raised, whoever adds one.
func TestLimitNames(t *testing.T) {
	for room, limits := range map[string]any{"layer": layer.Limits{}, "graph": transfer.Limits{}, "registry": client.Limits{}} {
		for f := range reflect.TypeOf(limits).Fields() {
			if room == "registry" && f.Name == "Manifest" {
				continue // the specification's
			}
			if o := new(outside); !o.set(room+"."+f.Name, 1) {
				t.Errorf("%s cannot raise %s.%s", LimitsVariable, room, f.Name)
			}
		}
	}
}

func TestLimitHint(t *testing.T) {
	for want, err := range map[string]error{
		"TARE_LIMITS=layer.Depth=":      &layer.LimitError{Name: "Depth", Max: 1},
		"TARE_LIMITS=graph.Depth=":      &transfer.LimitError{Name: "Depth", Max: 1},
		"TARE_LIMITS=registry.Entries=": &client.LimitError{Name: "Entries"},
	} {
		if got := LimitHint(fmt.Errorf("pull: %w", err)); !strings.Contains(got, want) {
			t.Errorf("hint %q, want %q", got, want)
		}
	}
	if got := LimitHint(fmt.Errorf("other")); got != "" {
		t.Errorf("hint %q", got)
	}
}
