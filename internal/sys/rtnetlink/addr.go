package rtnetlink

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Address is an address of a network device with all that the kernel says about it.
type Address struct {
	Family uint8 // AF_INET, AF_INET6
	Prefix uint8
	Scope  uint8
	Flags  uint32 // IFA_F_*
	Label  string // of version 4: the device's name, or that with ":text" after it
	rest   []byte // the other attributes: the address itself, peer, broadcast, lifetimes, metric
}

// settable are the flags of an address that a user can set; the kernel finds the others by itself.
const settable = unix.IFA_F_NODAD | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_NOPREFIXROUTE |
	unix.IFA_F_MCAUTOJOIN | unix.IFA_F_OPTIMISTIC

// Permanent tells whether the address has no lifetime.
func (a *Address) Permanent() bool { return a.Flags&unix.IFA_F_PERMANENT != 0 }

// Global tells whether the address is valid everywhere, and not on the device's link or this host only.
func (a *Address) Global() bool { return a.Scope == unix.RT_SCOPE_UNIVERSE }

// Addresses returns a network device's addresses, in the order in which they must be added to get the same primary ones.
func (c *Conn) Addresses(index int) ([]Address, error) {
	answers, err := c.dump(unix.RTM_GETADDR, addressBody(&Address{}, index))
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var list []Address
	for _, m := range answers {
		if m.kind != unix.RTM_NEWADDR || len(m.body) < unix.SizeofIfAddrmsg || order.Uint32(m.body[4:]) != uint32(index) {
			continue
		}
		a := Address{Family: m.body[0], Prefix: m.body[1], Flags: uint32(m.body[2]), Scope: m.body[3]}
		attributes(m.body[unix.SizeofIfAddrmsg:], func(kind uint16, value []byte) {
			switch {
			case kind == unix.IFA_FLAGS && len(value) == 4:
				a.Flags = order.Uint32(value)
			case kind == unix.IFA_LABEL:
				a.Label = zeroEnded(value)
			default:
				a.rest = appendAttribute(a.rest, kind, value)
			}
		})
		list = append(list, a)
	}
	return list, nil
}

func addressBody(a *Address, index int) []byte {
	return order.AppendUint32([]byte{a.Family, a.Prefix, uint8(a.Flags & settable), a.Scope}, uint32(index))
}

// AddAddress adds an address to a network device. EEXIST: it has it.
func (c *Conn) AddAddress(index int, a *Address) error {
	b := append(addressBody(a, index), a.rest...)
	b = appendUint32(b, unix.IFA_FLAGS, a.Flags&settable)
	if a.Label != "" {
		b = appendString(b, unix.IFA_LABEL, a.Label)
	}
	_, err := c.do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, b)
	return err
}

// Route is a route through a network device that somebody has added, in the kernel's form.
type Route struct{ body []byte }

// Routes returns the routes through a network device that do not follow from its addresses, in the order in which they can be added
// again: those that others lead over come first.
func (c *Conn) Routes(index int) ([]Route, error) {
	var direct, gateways []Route
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		request := appendUint32(append([]byte{family}, make([]byte, unix.SizeofRtMsg-1)...), unix.RTA_OIF, uint32(index))
		answers, err := c.dump(unix.RTM_GETROUTE, request)
		if err == unix.ENOENT || err == unix.EOPNOTSUPP { // no table yet, or no such protocol in this kernel
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, m := range answers {
			if m.kind != unix.RTM_NEWROUTE || len(m.body) < unix.SizeofRtMsg {
				continue
			}
			r, gateway, ok := parseRoute(m.body, index)
			switch {
			case !ok:
			case gateway:
				gateways = append(gateways, r)
			default:
				direct = append(direct, r)
			}
		}
	}
	return append(direct, gateways...), nil
}

// parseRoute keeps what adding the route again needs. A route of several devices loses only this one's part and is not returned.
func parseRoute(body []byte, index int) (r Route, gateway, ok bool) {
	// struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
	table, protocol, flags := body[4], body[5], order.Uint32(body[8:])
	if table == unix.RT_TABLE_LOCAL || protocol == unix.RTPROT_KERNEL || protocol == unix.RTPROT_RA || flags&unix.RTM_F_CLONED != 0 {
		return r, false, false
	}
	r.body = append(r.body, body[:8]...)
	r.body = order.AppendUint32(r.body, flags&unix.RTNH_F_ONLINK)
	attributes(body[unix.SizeofRtMsg:], func(kind uint16, value []byte) {
		switch kind {
		case unix.RTA_OIF:
			ok = len(value) == 4 && order.Uint32(value) == uint32(index)
		case unix.RTA_GATEWAY, unix.RTA_VIA:
			gateway = true
		case unix.RTA_CACHEINFO:
			return
		}
		r.body = appendAttribute(r.body, kind, value)
	})
	return r, gateway, ok
}

// AddRoute adds a route that Routes has returned. EEXIST: it is there.
func (c *Conn) AddRoute(r Route) error {
	_, err := c.do(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, r.body)
	return err
}
