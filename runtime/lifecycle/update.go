package lifecycle

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/spec"
	"github.com/tare-oci/tare/runtime/state"
)

// Update changes the resource limits of a container that is not stopped. What res leaves unset keeps its value; when a value
// is refused nothing has changed. class, if not nil, has schemata of the container's class of service; res may be nil then.
func (r *Runtime) Update(ctx context.Context, id string, res *specs.LinuxResources, class *specs.LinuxIntelRdt) error {
	c, err := state.Open(ctx, r.Root, id)
	if err != nil {
		return err
	}
	defer c.Close()
	if s := c.Status(); s == state.Stopped || s == state.Creating {
		return ErrNotRunning
	}
	undo := func() error { return nil }
	if class != nil {
		if undo, err = r.updateRdt(c, class); err != nil {
			return fmt.Errorf("update class of service: %w", err)
		}
	}
	if err = r.updateCgroup(c, res); err != nil {
		if e := undo(); e != nil {
			return fmt.Errorf("%w (and taking back the class of service: %v)", err, e)
		}
	}
	return err
}

func (r *Runtime) updateCgroup(c *state.Container, res *specs.LinuxResources) error {
	if res == nil {
		return nil
	}
	g, err := r.cgroup(c)
	if err != nil {
		return err
	}
	if g == nil {
		return fmt.Errorf("update container %s: %w", c.ID, errNoCgroup)
	}
	if err := dropZeroPids(c, res); err != nil {
		return err
	}
	return g.Update(res)
}

// dropZeroPids reads a pids.limit of 0 as the version of the container's configuration has it.
func dropZeroPids(c *state.Container, res *specs.LinuxResources) error {
	if res.Pids == nil || res.Pids.Limit == nil || *res.Pids.Limit != 0 {
		return nil
	}
	config, err := c.Config()
	if err != nil {
		return err
	}
	s, _, err := spec.Parse(config)
	if err != nil {
		return fmt.Errorf("%s in the state of %s: %w", spec.ConfigName, c.ID, err)
	}
	spec.DropZeroPids(s.Version, res)
	return nil
}

// ParseSize reads a number of bytes with an optional unit K, M, G, T or P, of powers of 1024, in upper or lower case, with or
// without "B" or "iB" after it. "-1" stays: no limit.
func ParseSize(s string) (int64, error) {
	if s == "-1" {
		return -1, nil
	}
	number := strings.TrimRight(s, "BbIiKkMmGgTtPp")
	unit := strings.ToLower(s[len(number):])
	number = strings.TrimSuffix(number, " ")
	shift := 0
	if unit != "" && unit != "b" {
		i := strings.IndexByte("kmgtp", unit[0])
		if rest := unit[1:]; i < 0 || rest != "" && rest != "b" && rest != "ib" {
			return 0, fmt.Errorf("invalid size: '%s'", s)
		}
		shift = 10 * (i + 1)
	}
	if whole, part, fraction := strings.Cut(number, "."); fraction {
		f, err := strconv.ParseFloat(number, 64)
		if f *= float64(int64(1) << shift); err != nil || strings.Trim(whole+part, "0123456789") != "" || f >= 1<<63 {
			return 0, fmt.Errorf("invalid size: '%s'", s)
		}
		return int64(f), nil
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > (1<<63-1)>>shift {
		return 0, fmt.Errorf("invalid size: '%s'", s)
	}
	return n << shift, nil
}
