package engine

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/image/bundle"
	"github.com/tare-oci/tare/internal/atomicfile"
)

// prepare writes the bundle: the files and directories that the container gets beside its root, and config.json.
func (c *Container) prepare(img *image, o *RunOptions) error {
	root, err := os.Open(c.path("rootfs"))
	if err != nil {
		return err
	}
	defer root.Close()
	if o.Hostname == "" {
		if o.Hostname, err = c.defaultHostname(o); err != nil {
			return err
		}
	}
	etc, err := c.etcFiles(root, o)
	if err != nil {
		return err
	}
	volumes, err := c.volumes(root, img, o)
	if err != nil {
		return err
	}
	spec, err := bundle.Spec(bundle.Input{
		Image: img.Config, Root: root, Entrypoint: o.Entrypoint, Args: o.Args, Env: c.environment(o), Cwd: o.WorkDir,
		User: o.User, Hostname: o.Hostname, Terminal: o.Terminal, ReadOnly: o.ReadOnly,
	})
	if err != nil {
		return err
	}
	spec.Mounts = slices.DeleteFunc(spec.Mounts, func(m specs.Mount) bool { return covered(o.Volumes, m.Destination) })
	spec.Mounts = append(append(spec.Mounts, etc...), volumes...)
	if err := c.adjust(spec, o); err != nil {
		return err
	}
	c.record.Args = spec.Process.Args
	if err := c.save(atomicfile.NoSync); err != nil {
		return err
	}
	return bundle.Write(c.path(), spec)
}

func (c *Container) defaultHostname(o *RunOptions) (string, error) {
	if o.Network == "host" {
		return os.Hostname()
	}
	return c.record.ID[:12], nil
}

// environment adds what docker adds to the user's variables, which win.
func (c *Container) environment(o *RunOptions) []string {
	env := []string{"HOSTNAME=" + o.Hostname}
	if o.Terminal {
		env = append(env, "TERM=xterm")
	}
	return append(env, o.Env...)
}

// adjust puts into the description what the image has no say in: limits, network, cgroup.
func (c *Container) adjust(s *specs.Spec, o *RunOptions) error {
	if s.Linux == nil || s.Process == nil {
		return errors.New("describe container: not for Linux")
	}
	if err := o.Limits.apply(s); err != nil {
		return err
	}
	s.Linux.CgroupsPath = "/tare-" + c.record.ID
	if o.Network == "host" {
		kept := s.Linux.Namespaces[:0]
		for _, ns := range s.Linux.Namespaces {
			if ns.Type != specs.NetworkNamespace {
				kept = append(kept, ns)
			}
		}
		s.Linux.Namespaces = kept
	}
	return nil
}

// volumes returns the mounts of the user's volumes and of the image's, parents first. A volume without a source is a new
// directory of the container's own, with what the image has in its place.
func (c *Container) volumes(root *os.File, img *image, o *RunOptions) ([]specs.Mount, error) {
	all := append([]Volume(nil), o.Volumes...)
	wanted, err := bundle.Volumes(img.Config)
	if err != nil {
		return nil, err
	}
	for _, dst := range wanted {
		if !covered(all, dst) {
			all = append(all, Volume{Destination: dst})
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].Destination < all[j].Destination })
	var mounts []specs.Mount
	for i, v := range all {
		options := append([]string{"rbind"}, v.Options...)
		if v.Source == "" {
			v.Source = c.path("volumes", strconv.Itoa(i))
			options = append(options, "rprivate")
			if err := os.MkdirAll(filepath.Dir(v.Source), 0o700); err != nil {
				return nil, err
			}
			if err := os.Mkdir(v.Source, 0o755); err != nil {
				return nil, err
			}
			if err := seed(v.Source, root, v.Destination); err != nil {
				return nil, err
			}
		}
		mounts = append(mounts, specs.Mount{Destination: v.Destination, Type: "bind", Source: v.Source, Options: options})
	}
	return mounts, nil
}
