package engine

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/tare-oci/tare/distribution/client"
	"github.com/tare-oci/tare/distribution/transfer"
	"github.com/tare-oci/tare/image/layer"
)

// LimitsVariable is the environment variable by which people raise the limits on what comes from outside: words like
// layer.Entries=8000000, separated by commas or spaces; -1 is no limit. Times are in seconds.
const LimitsVariable = "TARE_LIMITS"

// outside are the limits on images and registries.
type outside struct {
	layer    layer.Limits
	graph    transfer.Limits
	registry client.Limits
}

// readLimits reads the environment.
func readLimits() (outside, error) {
	var o outside
	for _, word := range strings.FieldsFunc(os.Getenv(LimitsVariable), func(r rune) bool { return r == ',' || r == ' ' }) {
		name, value, _ := strings.Cut(word, "=")
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n == 0 || n < -1 {
			return o, fmt.Errorf("read %s: %q is no limit: want NAME=NUMBER, such as layer.Entries=8000000", LimitsVariable, word)
		}
		if !o.set(name, n) {
			return o, fmt.Errorf("read %s: there is no limit %q", LimitsVariable, name)
		}
	}
	return o, nil
}

// set sets one limit and reports whether there is such a one.
func (o *outside) set(name string, n int64) bool {
	small := func(to *int) func() {
		return func() { *to = int(min(uint64(n), 1<<30)) } // -1 too is as good as none
	}
	seconds := func(to *time.Duration) func() {
		return func() { *to = time.Duration(min(uint64(n), 1<<32)) * time.Second }
	}
	large := func(to *int64) func() { return func() { *to = n } }
	set, ok := map[string]func(){
		"layer.TotalBytes":    large(&o.layer.TotalBytes),
		"layer.Entries":       large(&o.layer.Entries),
		"layer.PathLength":    large(&o.layer.PathLength),
		"layer.Depth":         large(&o.layer.Depth),
		"layer.XattrBytes":    large(&o.layer.XattrBytes),
		"layer.Ratio":         large(&o.layer.Ratio),
		"layer.Trailing":      large(&o.layer.Trailing),
		"graph.Depth":         large(&o.graph.Depth),
		"graph.Descriptors":   large(&o.graph.Descriptors),
		"graph.DocumentBytes": large(&o.graph.DocumentBytes),
		"graph.TotalBytes":    large(&o.graph.TotalBytes),
		"registry.List":       func() { o.registry.List = int64(min(uint64(n), 1<<40)) },
		"registry.Entries":    small(&o.registry.Entries),
		"registry.Pages":      small(&o.registry.Pages),
		"registry.Redirects":  small(&o.registry.Redirects),
		"registry.Stall":      seconds(&o.registry.Stall),
		"registry.Answer":     seconds(&o.registry.Answer),
	}[name]
	if ok {
		set()
	}
	return ok
}

// LimitHint says how the limit that err is about is raised; empty if it is about none.
func LimitHint(err error) string {
	var name string
	var l *layer.LimitError
	var g *transfer.LimitError
	var r *client.LimitError
	switch {
	case errors.As(err, &l):
		name = "layer." + l.Name
	case errors.As(err, &g):
		name = "graph." + g.Name
	case errors.As(err, &r):
		name = "registry." + r.Name
	default:
		return ""
	}
	return fmt.Sprintf("if you trust where it comes from: %s=%s=NUMBER in the environment raises the limit, -1 takes it away", LimitsVariable, name)
}
