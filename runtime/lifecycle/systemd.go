package lifecycle

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/systemd"
)

// scope is a container's scope of systemd on its way.
type scope struct {
	place      systemd.Place
	manager    *systemd.Manager
	properties []systemd.Property
}

// planScope decides where the container's scope will be. Whose systemd that is follows from whose rights the runtime has.
func (p *prepared) planScope(host *cgroup.Host, id string) (err error) {
	user := p.host.Rootless
	if user && host.Mode != cgroup.V2 {
		return errors.New("cannot use rootless systemd cgroups manager on cgroup v1")
	}
	s := &scope{}
	if s.place, err = systemd.ParsePath(p.spec.Linux.CgroupsPath, id, user); err != nil {
		return err
	}
	asked, err := systemd.Annotated(p.spec.Annotations)
	if err != nil {
		return err
	}
	s.properties = systemd.Base(id, host.Mode == cgroup.V2, asked)
	ctx := context.Background()
	if s.manager, err = systemd.Connect(ctx, user); err != nil {
		return err
	}
	p.scope = s
	above, err := s.manager.ControlGroup(ctx)
	if err != nil {
		return err
	}
	p.group, err = host.PlanUnit(above+s.place.Path(), cgroup.Unit{Name: s.place.Unit, User: user})
	if err != nil {
		return err
	}
	p.describeCgroup()
	p.host.Placed = true
	return nil
}

// closeScope ends the connection to systemd, if there is one.
func (p *prepared) closeScope() {
	if p.scope != nil {
		p.scope.manager.Close()
	}
}

// enterScope makes what is not systemd's of the scope's cgroup, for the child to join. The scope itself needs a process first.
func (k *creation) enterScope() error {
	res := k.spec.Linux.Resources
	if err := k.group.Fit(); err != nil {
		return err
	}
	if err := k.claimCgroup(); err != nil {
		return err
	}
	if err := k.group.Create(res); err != nil {
		k.c.Cgroup = nil // it has removed what it made
		return err
	}
	k.c.Cgroup = k.group.AppendJSON(nil)
	devices, err := k.deviceProperties()
	if err != nil {
		return err
	}
	k.scope.properties = append(k.scope.properties, devices...)
	k.join, err = k.group.JoinRest()
	return err
}

// deviceProperties tells systemd the device rules, so that it writes what this runtime writes.
func (k *creation) deviceProperties() ([]systemd.Property, error) {
	var asked []specs.LinuxDeviceCgroup
	if k.spec.Linux.Resources != nil {
		asked = k.spec.Linux.Resources.Devices
	}
	v2 := k.group.Mode == cgroup.V2
	if v2 {
		properties, _ := systemd.Devices(true, false, nil)
		return properties, nil
	}
	allow, exceptions, err := cgroup.DeviceList(asked)
	if err != nil {
		return nil, err
	}
	rules := make([]systemd.Device, len(exceptions))
	for i, r := range exceptions {
		rules[i] = systemd.Device(r)
	}
	properties, left := systemd.Devices(v2, allow, rules)
	for _, r := range left {
		k.r.Warn(fmt.Sprintf("systemd has no rule for devices %c *:%d: a reload of it may take them away", r.Type, r.Minor))
	}
	if allow && len(rules) > 0 {
		k.r.Warn("systemd has no rules that deny devices: a reload of it may allow those that linux.resources.devices denies")
	}
	return properties, nil
}

// place starts the scope with the container's process, which waits for that, and makes it ready for it. What fails here is undone by
// undo, once it is known that the scope's cgroup is the container's.
func (k *creation) place(pid int) error {
	ctx := context.Background()
	if err := k.scope.manager.Start(ctx, k.scope.place, pid, k.scope.properties); err != nil {
		return err
	}
	if err := k.group.Started(pid, k.spec.Linux.Resources); err != nil {
		if k.group.Unit.ID == 0 { // not where it was asked for: the unit goes, nothing else is touched
			err = errors.Join(err, k.scope.manager.Stop(ctx, k.scope.place.Unit))
		}
		k.c.Cgroup = k.group.AppendJSON(nil)
		return err
	}
	k.c.Cgroup = k.group.AppendJSON(nil)
	if err := k.c.Save(); err != nil {
		return err
	}
	if err := k.delegate(); err != nil {
		return err
	}
	return k.group.ApplyDevices(k.spec.Linux.Resources)
}

// limit writes the limits and tells systemd the same.
func (s *scope) limit(g *cgroup.Group, res *specs.LinuxResources) error {
	return limitUnit(context.Background(), s.manager, g, res)
}

func limitUnit(ctx context.Context, m *systemd.Manager, g *cgroup.Group, res *specs.LinuxResources) error {
	return g.UpdateWith(res, func() error {
		written, err := g.Written(res)
		if err != nil {
			return err
		}
		files := make([]systemd.File, len(written))
		for i, w := range written {
			files[i] = systemd.File{Name: w.File, Content: w.Content}
		}
		properties, err := m.Limits(ctx, files)
		if err != nil {
			return err
		}
		return m.Set(ctx, g.Unit.Name, properties)
	})
}

// unitGroup is the group of a scope: what changes limits, or removes it, tells systemd.
type unitGroup struct{ *cgroup.Group }

// Update changes limits; see cgroup.Group.
func (u unitGroup) Update(res *specs.LinuxResources) error {
	ctx := context.Background()
	m, err := systemd.Connect(ctx, u.Unit.User)
	if err != nil {
		return err
	}
	defer m.Close()
	return limitUnit(ctx, m, u.Group, res)
}

// Destroy ends the processes that are left and the scope, unless another has taken its place.
func (u unitGroup) Destroy(ctx context.Context) error {
	if err := u.Group.Destroy(ctx); err != nil || u.Unit.ID == 0 {
		return err
	}
	there := u.Present()
	m, err := systemd.Connect(ctx, u.Unit.User)
	if err != nil {
		if there {
			return err
		}
		return nil // its last process took the scope along
	}
	defer m.Close()
	if there {
		if err := m.Stop(ctx, u.Unit.Name); err != nil {
			return err
		}
	}
	_ = m.ResetFailed(ctx, u.Unit.Name) // one that failed would keep the name
	return u.Stopped(ctx)
}

// joinUnit lets hooks join the scope, as the container's process cannot: it was moved.
func (in *inside) joinUnit(g *cgroup.Group) error {
	host := *in.host
	host.Placed, host.Cgroups = false, nil
	in.host, in.join = &host, nil
	return in.enterGroup(g, 0, nil)
}

// joinForCriu opens the scope, which the template's process was moved into, for criu, and names what is joined by itself.
func (k *creation) joinForCriu() ([]string, error) {
	if k.scope == nil {
		return k.host.Cgroups, nil
	}
	in := inside{host: k.host}
	if err := in.joinUnit(k.group); err != nil {
		return nil, err
	}
	if in.place != nil {
		return nil, errors.New("restore by a user into a scope of systemd is not supported")
	}
	for _, j := range k.join {
		j.File.Close()
	}
	k.join = in.join
	return in.host.Cgroups, nil
}

// placeInUnit has systemd move a process into the unit's cgroup: a user may not move one out of a login session.
func (in *inside) placeInUnit(g *cgroup.Group, init int, sub map[string]string) error {
	below, err := g.SubFor(init, sub)
	if err != nil {
		return err
	}
	in.host.Placed = true
	in.place = func(pid int) error {
		ctx := context.Background()
		m, err := systemd.Connect(ctx, g.Unit.User)
		if err != nil {
			return err
		}
		defer m.Close()
		return m.Attach(ctx, g.Unit.Name, below, pid)
	}
	return nil
}
