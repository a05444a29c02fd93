package lifecycle

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/sys/rtnetlink"
	"github.com/tare-oci/tare/runtime/plan"
)

// netDevices moves the devices of linux.netDevices into a container that is being created. Until create has succeeded it keeps the
// container's network namespace open, so that the devices outlive the container's process and can be moved back: a virtual device
// is destroyed with the namespace that it is in.
//
//	host                                        container
//	read device, addresses, routes
//	                                            look for the names
//	move, rename, choose index ───────────────►
//	                                            add permanent global addresses, set up
//	◄─────────────────────────────────────────  (create failed)
//	add addresses, set up, add to its bridge, add routes
//
// What moving back cannot restore are the device's parameters below /proc/sys/net and its queueing disciplines.
type netDevices struct {
	host, inside     *rtnetlink.Conn
	hostNS, insideNS *os.File
	list             []netDevice
}

// netDevice is one device and what it loses when it is moved.
type netDevice struct {
	op        plan.NetDevice
	link      rtnetlink.Link // on the host
	addresses []rtnetlink.Address
	routes    []rtnetlink.Route
	index     int // in the container; 0: not moved
}

// lookNetDevices checks that the configuration's network devices can be moved, before anything is touched.
func (k *creation) lookNetDevices() error {
	d := &netDevices{}
	for _, op := range k.plan.Beside {
		if o, ok := op.(plan.NetDevice); ok {
			d.list = append(d.list, netDevice{op: o})
		}
	}
	if len(d.list) == 0 {
		return nil
	}
	k.devices = d
	var err error
	if d.hostNS, err = os.Open("/proc/self/ns/net"); err != nil {
		return fmt.Errorf("linux.netDevices: %w", err)
	}
	if d.host, err = rtnetlink.Open(); err != nil {
		return fmt.Errorf("linux.netDevices: %w", err)
	}
	for i := range d.list {
		if err := d.read(&d.list[i]); err != nil {
			return fmt.Errorf("linux.netDevices: read network device %s: %w", d.list[i].op.Device, err)
		}
	}
	return nil
}

func (d *netDevices) read(n *netDevice) (err error) {
	if n.link, err = d.host.LinkByName(n.op.Device); err != nil {
		return err
	}
	if n.addresses, err = d.host.Addresses(n.link.Index); err != nil {
		return err
	}
	n.routes, err = d.host.Routes(n.link.Index)
	return err
}

// networkPath is the path of the network namespace that the container joins, "" for a new one.
func networkPath(s *specs.Spec) string {
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == specs.NetworkNamespace {
			return ns.Path
		}
	}
	return ""
}

// moveNetDevices moves the devices while the child waits, and lets it go on.
func (k *creation) moveNetDevices() error {
	if k.devices == nil {
		return nil
	}
	path := networkPath(k.spec)
	own := path == ""
	if own {
		path = "/proc/" + strconv.Itoa(k.child.PID) + "/ns/net"
	}
	ns, err := os.Open(path)
	if own && errors.Is(err, os.ErrNotExist) {
		return k.childError(err)
	}
	if err != nil {
		return fmt.Errorf("open the container's network namespace: %w", err)
	}
	if err := k.devices.move(ns); err != nil {
		return err
	}
	return k.child.Go()
}

// childError returns the own error of a child that has ended, or else err, which is what the parent met because of that.
func (k *creation) childError(err error) error {
	if own := k.child.Await(plan.StageCreated); own != nil {
		return own
	}
	return err
}

// move takes over the container's network namespace ns.
func (d *netDevices) move(ns *os.File) (err error) {
	d.insideNS = ns
	if d.inside, err = rtnetlink.OpenIn(d.insideNS); err != nil {
		return err
	}
	present, err := d.inside.Links()
	if err != nil {
		return err
	}
	names, indexes := map[string]bool{}, map[int]bool{}
	for _, l := range present {
		names[l.Name], indexes[l.Index] = true, true
	}
	for i := range d.list {
		n := &d.list[i]
		if names[n.op.Name] {
			return fmt.Errorf("%s: its network namespace has a device of that name", n.op.What())
		}
	}
	for i := range d.list {
		n := &d.list[i]
		index := n.link.Index
		for indexes[index] {
			index++
		}
		indexes[index] = true
		if err := d.moveOne(n, index); err != nil {
			return fmt.Errorf("%s: %w", n.op.What(), err)
		}
	}
	return nil
}

// moveOne gives the device an index that it chooses, by which the device is found whatever name the kernel gives it.
func (d *netDevices) moveOne(n *netDevice, index int) error {
	n.index = index // before the call: the kernel may move and then fail
	if err := d.host.MoveLink(n.link.Index, d.insideNS, n.op.Name, index); err != nil {
		return err
	}
	now, err := d.inside.LinkByIndex(index)
	if err != nil {
		return err
	}
	for _, a := range n.addresses {
		if !a.Permanent() || !a.Global() {
			continue
		}
		a.Label = relabel(a.Label, n.link.Name, now.Name)
		if err := d.inside.AddAddress(index, &a); err != nil {
			return fmt.Errorf("add its addresses: %w", err)
		}
	}
	if err := d.inside.SetUp(index); err != nil {
		return fmt.Errorf("set it up: %w", err)
	}
	return nil
}

// relabel renames the label of a version 4 address, which starts with the device's name, and leaves out one that is too long.
func relabel(label, from, to string) string {
	rest, ok := strings.CutPrefix(label, from)
	if !ok || len(to)+len(rest) > 15 {
		return ""
	}
	return to + rest
}

// moveBack undoes move, as far as that came. d may be nil.
func (d *netDevices) moveBack() error {
	if d == nil {
		return nil
	}
	var failed []error
	for i := len(d.list) - 1; i >= 0; i-- {
		if n := &d.list[i]; n.index != 0 {
			if err := d.moveOneBack(n); err != nil {
				failed = append(failed, fmt.Errorf("move network device %s back to the host: %w", n.op.Device, err))
			}
			n.index = 0
		}
	}
	return errors.Join(failed...)
}

func (d *netDevices) moveOneBack(n *netDevice) error {
	if _, err := d.inside.LinkByIndex(n.index); errors.Is(err, syscall.ENODEV) {
		return nil // it was not moved, or a hook has taken it
	} else if err != nil {
		return err
	}
	index := n.link.Index
	err := d.inside.MoveLink(n.index, d.hostNS, n.link.Name, index)
	if errors.Is(err, syscall.EBUSY) { // another device has got the index meanwhile
		if err = d.inside.MoveLink(n.index, d.hostNS, n.link.Name, 0); err != nil {
			return err
		}
		var now rtnetlink.Link
		now, err = d.host.LinkByName(n.link.Name)
		index = now.Index
	}
	if err != nil {
		return err
	}
	return d.restore(n, index)
}

// restore gives a device that is back on the host what it has lost. Routes keep the index that they were read with.
func (d *netDevices) restore(n *netDevice, index int) error {
	var failed []error
	keep := func(err error) {
		if err != nil && !errors.Is(err, syscall.EEXIST) {
			failed = append(failed, err)
		}
	}
	for i := range n.addresses {
		keep(d.host.AddAddress(index, &n.addresses[i]))
	}
	if n.link.Master != 0 {
		keep(d.host.SetMaster(index, n.link.Master))
	}
	if n.link.Up {
		keep(d.host.SetUp(index))
	}
	if index == n.link.Index && n.link.Up {
		for _, r := range n.routes {
			keep(d.host.AddRoute(r))
		}
	}
	return errors.Join(failed...)
}

// close leaves the devices to the container and releases its network namespace. d may be nil.
func (d *netDevices) close() {
	if d == nil {
		return
	}
	for _, c := range []*rtnetlink.Conn{d.host, d.inside} {
		if c != nil {
			c.Close()
		}
	}
	for _, f := range []*os.File{d.hostNS, d.insideNS} {
		if f != nil {
			f.Close()
		}
	}
	*d = netDevices{}
}
