package rtnetlink

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Link is a network device.
type Link struct {
	Index   int
	Name    string
	Up      bool // set up by its administrator
	MTU     int
	Address []byte // of the hardware
	Master  int    // index of the bridge or bond that it is a part of; 0: none
}

// linkBody is struct ifinfomsg: index 0 with a name attribute, or an index.
func linkBody(index int, flags, change uint32) []byte {
	b := make([]byte, 0, 64)
	b = append(b, unix.AF_UNSPEC, 0, 0, 0) // family, padding, device type
	b = order.AppendUint32(b, uint32(index))
	b = order.AppendUint32(b, flags)
	return order.AppendUint32(b, change)
}

func parseLink(body []byte) (l Link, ok bool) {
	if len(body) < unix.SizeofIfInfomsg {
		return l, false
	}
	l.Index = int(int32(order.Uint32(body[4:])))
	l.Up = order.Uint32(body[8:])&unix.IFF_UP != 0
	attributes(body[unix.SizeofIfInfomsg:], func(kind uint16, value []byte) {
		switch {
		case kind == unix.IFLA_IFNAME:
			l.Name = zeroEnded(value)
		case kind == unix.IFLA_ADDRESS:
			l.Address = value
		case kind == unix.IFLA_MTU && len(value) == 4:
			l.MTU = int(order.Uint32(value))
		case kind == unix.IFLA_MASTER && len(value) == 4:
			l.Master = int(order.Uint32(value))
		}
	})
	return l, true
}

// Links returns all network devices.
func (c *Conn) Links() ([]Link, error) {
	answers, err := c.dump(unix.RTM_GETLINK, linkBody(0, 0, 0))
	if err != nil {
		return nil, fmt.Errorf("list network devices: %w", err)
	}
	return links(answers), nil
}

func links(answers []message) (list []Link) {
	for _, m := range answers {
		if l, ok := parseLink(m.body); ok && m.kind == unix.RTM_NEWLINK {
			list = append(list, l)
		}
	}
	return list
}

// LinkByName returns one network device. ENODEV: there is none.
func (c *Conn) LinkByName(name string) (Link, error) {
	return c.link(appendString(linkBody(0, 0, 0), unix.IFLA_IFNAME, name))
}

// LinkByIndex returns one network device. ENODEV: there is none.
func (c *Conn) LinkByIndex(index int) (Link, error) { return c.link(linkBody(index, 0, 0)) }

func (c *Conn) link(body []byte) (Link, error) {
	answers, err := c.do(unix.RTM_GETLINK, 0, body)
	if err != nil {
		return Link{}, err
	}
	list := links(answers)
	if len(list) != 1 {
		return Link{}, unix.ENODEV
	}
	return list[0], nil
}

// MoveLink moves a network device into the network namespace ns, where it gets the name and the index; index 0 lets the kernel
// choose. A name that ends in %d is completed by the kernel. The kernel moves before it renames: after EEXIST the device may be in ns
// under its old name. It is set down, and its addresses and routes are lost.
func (c *Conn) MoveLink(index int, ns *os.File, name string, newIndex int) error {
	b := appendUint32(linkBody(index, 0, 0), unix.IFLA_NET_NS_FD, uint32(ns.Fd()))
	b = appendString(b, unix.IFLA_IFNAME, name)
	if newIndex != 0 {
		b = appendUint32(b, unix.IFLA_NEW_IFINDEX, uint32(newIndex))
	}
	_, err := c.do(unix.RTM_SETLINK, 0, b)
	return err
}

// SetUp sets a network device up.
func (c *Conn) SetUp(index int) error {
	_, err := c.do(unix.RTM_SETLINK, 0, linkBody(index, unix.IFF_UP, unix.IFF_UP))
	return err
}

// SetMaster makes a network device a part of the bridge or bond with index master.
func (c *Conn) SetMaster(index, master int) error {
	_, err := c.do(unix.RTM_SETLINK, 0, appendUint32(linkBody(index, 0, 0), unix.IFLA_MASTER, uint32(master)))
	return err
}
