package rtnetlink

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// namespace makes a network namespace that lives as long as the file.
func namespace(t *testing.T) *os.File {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	type result struct {
		f   *os.File
		err error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- result{nil, err}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		made <- result{f, err}
	}()
	r := <-made
	if r.err != nil {
		t.Skipf("make network namespace: %v", r.err)
	}
	t.Cleanup(func() { r.f.Close() })
	return r.f
}

// ip runs ip(8) in a network namespace.
func ip(t *testing.T, ns *os.File, line string) string {
	t.Helper()
	c := exec.Command("nsenter", append([]string{"--net=/proc/self/fd/3", "ip"}, strings.Fields(line)...)...)
	c.ExtraFiles = []*os.File{ns}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v: %s", line, err, out)
	}
	return string(out)
}

// show lists the addresses of v0 in their order, and the sorted routes.
func show(t *testing.T, ns *os.File) string {
	t.Helper()
	routes := strings.Split(ip(t, ns, "route show table all")+ip(t, ns, "-6 route show table all"), "\n")
	slices.Sort(routes)
	return strings.ReplaceAll(ip(t, ns, "addr show v0"), " tentative", "") + strings.Join(routes, "\n")
}

func open(t *testing.T, ns *os.File) *Conn {
	t.Helper()
	own, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	c, err := OpenIn(ns)
	if err != nil {
		t.Fatal(err)
	}
	if now, _ := os.Readlink("/proc/thread-self/ns/net"); now != own {
		t.Fatalf("the thread is in %s after OpenIn, was in %s", now, own)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestMove(t *testing.T) {
	hostNS, otherNS := namespace(t), namespace(t)
	for _, line := range []string{"link set lo up", "link add v0 mtu 1400 type veth peer name p0", "link set p0 up", "addr add 10.1.0.1/24 dev v0 label v0:a",
		"addr add 10.1.0.2/24 dev v0", "addr add 10.2.0.1/24 scope link dev v0", "addr add 10.3.0.1/24 valid_lft 500 preferred_lft 400 dev v0",
		"addr add fd00::7/64 metric 77 dev v0 nodad", "link set v0 up", "route add 10.9.0.0/16 via 10.1.0.9 dev v0 table 99",
		"route add 10.8.0.0/16 dev v0", "route add fd09::/64 via fd00::9 dev v0"} {
		ip(t, hostNS, line)
	}
	before := show(t, hostNS)
	host, other := open(t, hostNS), open(t, otherNS)
	l, err := host.LinkByName("v0")
	if err != nil || l.MTU != 1400 || !l.Up || l.Master != 0 || len(l.Address) != 6 {
		t.Fatalf("link %+v, error %v", l, err)
	}
	addresses, err := host.Addresses(l.Index)
	if err != nil {
		t.Fatal(err)
	}
	kept := 0
	for _, a := range addresses {
		if a.Permanent() && a.Global() {
			kept++
		}
	}
	if len(addresses) != 6 || kept != 3 { // one is fe80::
		t.Fatalf("%d addresses, %d of them permanent and global: %+v", len(addresses), kept, addresses)
	}
	routes, err := host.Routes(l.Index)
	if err != nil || len(routes) != 3 {
		t.Fatalf("%d routes, error %v", len(routes), err)
	}
	if err := host.MoveLink(l.Index, otherNS, "eth%d", 4242); err != nil {
		t.Fatal(err)
	}
	if m, err := other.LinkByIndex(4242); err != nil || m.Name != "eth0" || m.MTU != 1400 || string(m.Address) != string(l.Address) || m.Up {
		t.Fatalf("moved link %+v, error %v", m, err)
	}
	if err := other.MoveLink(4242, hostNS, "v0", l.Index); err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if err := host.AddAddress(l.Index, &a); err != nil {
			t.Fatalf("%+v: %v", a, err)
		}
	}
	if err := host.SetUp(l.Index); err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if err := host.AddRoute(r); err != nil {
			t.Fatal(err)
		}
	}
	if after := show(t, hostNS); after != before {
		t.Errorf("after the way there and back:\n%s\nbefore:\n%s", after, before)
	}
}

func TestErrors(t *testing.T) {
	ns, other := namespace(t), namespace(t)
	c := open(t, ns)
	if _, err := c.LinkByName("nope0"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("missing device: %v", err)
	}
	lo, err := c.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.MoveLink(lo.Index, other, "x", 0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("move of lo: %v", err)
	} else if !strings.Contains(err.Error(), "(") {
		t.Logf("this kernel does not say why lo cannot be moved: %v", err) // Linux 6.12 does not
	}
	list, err := c.Links()
	if err != nil || len(list) == 0 || list[0].Name != "lo" {
		t.Errorf("links %+v, error %v", list, err)
	}
}

func TestMaster(t *testing.T) {
	ns := namespace(t)
	c := open(t, ns)
	ip(t, ns, "link add v0 type veth peer name p0")
	made := exec.Command("nsenter", "--net=/proc/self/fd/3", "ip", "link", "add", "br0", "type", "bridge")
	made.ExtraFiles = []*os.File{ns}
	if out, err := made.CombinedOutput(); err != nil {
		t.Skipf("this kernel makes no bridge: %s", out)
	}
	br, err := c.LinkByName("br0")
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.LinkByName("v0")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetMaster(v.Index, br.Index); err != nil {
		t.Fatal(err)
	}
	if v, err = c.LinkByIndex(v.Index); err != nil || v.Master != br.Index {
		t.Errorf("link %+v, error %v", v, err)
	}
}

func TestAttributesCut(t *testing.T) {
	b := appendString(nil, 1, "abc")
	for n := range b {
		attributes(b[:n], func(uint16, []byte) {
			if n < 8 {
				t.Errorf("attribute in %d bytes", n)
			}
		})
	}
}
