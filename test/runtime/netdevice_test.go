package runtime

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

func ip(h *H, line string) string {
	out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput()
	if err != nil {
		h.Fatalf("ip %s: %s", line, out)
	}
	return string(out)
}

// veth makes a pair of network devices in the suite's network namespace; name is the one that a container gets.
func veth(name string) func(*H, *Bundle) {
	return func(h *H, _ *Bundle) {
		h.Cleanup(func() { exec.Command("ip", "link", "del", "peer-"+name).Run() })
		for _, line := range []string{"link add @ address 02:00:00:00:00:99 mtu 1400 type veth peer name peer-@", "addr add 10.9.8.7/24 dev @ label @:x",
			"addr add 10.9.8.8/24 dev @", "addr add 10.9.9.1/24 dev @ scope link", "addr add 10.9.7.1/24 dev @ valid_lft 500 preferred_lft 500",
			"addr add fd00::7/64 dev @ nodad", "addr add fd01::7/64 dev @ nodad valid_lft 500 preferred_lft 500", "link set peer-@ up",
			"link set @ up", "route add 10.77.0.0/16 via 10.9.8.1 dev @"} {
			ip(h, strings.ReplaceAll(line, "@", name))
		}
	}
}

// deviceState is all that create must leave, or give back, when it fails.
func deviceState(h *H, name string) string {
	s := ""
	for _, line := range []string{"-o link show @", "-o addr show @", "route show dev @", "-6 route show dev @"} {
		for l := range strings.Lines(ip(h, strings.ReplaceAll(line, "@", name))) {
			if !strings.Contains(l, "sec") && !strings.Contains(l, "fe80:") { // lifetimes run; the link-local one takes a moment
				s += l
			}
		}
	}
	return s
}

const names = "ls /sys/class/net/ | tr '\\n' ' '"

var netDeviceCases = []Case{
	{Row: "ND1 move and rename", Setup: veth("v0"), Edit: []string{`linux.netDevices={"v0":{"name":"c0"}}`}, Sh: "ip -o link show c0; " + names,
		Out: "~mtu 1400 .*02:00:00:00:00:99.*\nc0 lo$"},
	{Row: "ND1 the name stays", Setup: veth("v0"), Edit: []string{`linux.netDevices={"v0":{}}`}, Sh: names, Out: "lo v0"},
	{Row: "ND2 permanent global addresses, no others", Setup: veth("v0"), Edit: []string{`linux.netDevices={"v0":{"name":"c0"}}`},
		Sh:  "ip -o addr show c0 | grep -v fe80 | awk '{print $4, $6, $7}'",
		Out: "~^10.9.8.7/24 global c0:x.*\n10.9.8.8/24 global secondary\nfd00::7/64 global flags$"},
	{Row: "ND3 is up", Setup: veth("v0"), Edit: []string{`linux.netDevices={"v0":{"name":"c0"}}`}, Sh: "ip -o link show c0", Out: "~[<,]UP,LOWER_UP"},
	{Row: "ND5 name template", Setup: veth("v0"), Edit: []string{`linux.netDevices={"v0":{"name":"eth%d"}}`}, Sh: names, Out: "eth0 lo"},
	{Row: "ND5 two of one template beside a name of its form", Setup: func(h *H, b *Bundle) { veth("v0")(h, b); ip(h, "link set v0 mtu 1300"); pair(h, "a0", "z0") },
		Edit: []string{`linux.netDevices={"a0":{"name":"eth%d"},"v0":{"name":"eth0"},"z0":{"name":"eth%d"}}`},
		Sh:   names + "; cat /sys/class/net/eth0/mtu", Out: "eth0 eth1 eth2 lo 1300"},
	{Row: "ND1 names that change places", Setup: func(h *H, b *Bundle) { pair(h, "a0", "z0"); ip(h, "link set a0 mtu 1200") },
		Edit: []string{`linux.netDevices={"a0":{"name":"z0"},"z0":{"name":"a0"}}`}, Sh: names + "; cat /sys/class/net/z0/mtu", Out: "a0 lo z0 1200"},
	{Row: "ND1 kernel parameters of the device", Setup: veth("v0"), Edit: []string{`linux.netDevices={"v0":{"name":"c0"}}`,
		`linux.sysctl={"net.ipv4.conf.c0.forwarding":"1"}`}, Sh: "cat /proc/sys/net/ipv4/conf/c0/forwarding", Out: "1"},
	{Row: "ND1 in a user namespace", Setup: veth("v0"), Edit: []string{`linux.netDevices={"v0":{"name":"c0"}}`, `linux.namespaces+=[{"type":"user"}]`,
		`linux.uidMappings=[{"containerID":0,"hostID":100000,"size":65536}]`, `linux.gidMappings=[{"containerID":0,"hostID":100000,"size":65536}]`},
		Sh: "ip -o -4 addr show c0 | awk '{print $4}'", Out: "10.9.8.7/24\n10.9.8.8/24"},
	{Row: "ND7 not managed afterwards", Setup: veth("v0"), Edit: []string{`linux.netDevices={"v0":{"name":"c0"}}`}, After: func(h *H, _ *Bundle, _ Result) {
		h.Await("the end of the device with its network namespace", func() bool { return exec.Command("ip", "link", "show", "peer-v0").Run() != nil })
		if exec.Command("ip", "link", "show", "v0").Run() == nil {
			h.Errorf("the device was moved back")
		}
	}},
}

// pair makes plain devices without addresses.
func pair(h *H, names ...string) {
	for _, name := range names {
		h.Cleanup(func() { exec.Command("ip", "link", "del", name+"-peer").Run() })
		ip(h, "link add "+name+" type veth peer name "+name+"-peer")
	}
}

var netDeviceErrors = []Case{
	{Row: "ND6 no network namespace", Edit: []string{`linux.netDevices={"lo":{}}`, `linux.namespaces=[{"type":"pid"},{"type":"mount"},{"type":"ipc"},{"type":"uts"}]`}, Err: "network"},
	{Row: "ND6 the host's network namespace by path", Edit: []string{`linux.netDevices={"lo":{}}`,
		`linux.namespaces=[{"type":"pid"},{"type":"mount"},{"type":"ipc"},{"type":"uts"},{"type":"network","path":"/proc/1/ns/net"}]`}, Err: "host's"},
	{Row: "ND6 missing device", Edit: []string{`linux.netDevices={"nope0":{}}`}, Err: "nope0"},
	{Row: "ND6 a device that cannot be moved", Edit: []string{`linux.netDevices={"lo":{"name":"c0"}}`}, Err: "network device lo"},
	{Row: "ND8 long name", Edit: []string{`linux.netDevices={"nope0":{"name":"a123456789012345"}}`}, Err: "name"},
	{Row: "ND8 bad name", Edit: []string{`linux.netDevices={"nope0":{"name":"a/b"}}`}, Err: "name"},
	{Row: "ND8 one name twice", Edit: []string{`linux.netDevices={"nope0":{"name":"a"},"nope1":{"name":"a"}}`}, Err: "name"},
}

func TestNetDevices(t *testing.T) {
	runCases(t, netDeviceCases)
	runCases(t, netDeviceErrors)
	for name, edits := range map[string][]string{
		"ND4 name that is taken":      {`linux.netDevices={"v0":{"name":"lo"}}`},
		"ND4 second name is taken":    {`linux.netDevices={"v0":{"name":"a"},"v1":{"name":"lo"}}`},
		"ND4 second is not moved":     {`linux.netDevices={"v0":{"name":"a"},"v1":{"name":"b"},"lo":{"name":"c%d"}}`},
		"G5 a later step fails":       {`linux.netDevices={"v0":{"name":"a"},"v1":{"name":"b%d"}}`, `process.args=["nope"]`},
		"G5 a kernel parameter fails": {`linux.netDevices={"v0":{"name":"a"},"v1":{"name":"b"}}`, `linux.sysctl={"net.ipv4.conf.a.forwarding":"banana"}`},
		"G5 a hook fails":             {`linux.netDevices={"v0":{"name":"a"},"v1":{"name":"b"}}`, `hooks={"createContainer":[{"path":"/bin/false"}]}`},
	} {
		row(t, name, func(h *H) {
			b := h.Bundle().Edit(edits...)
			veth("v0")(h, b)
			pair(h, "v1")
			ip(h, "addr add 10.1.1.1/24 dev v1")
			before := deviceState(h, "v0") + deviceState(h, "v1")
			h.Write(b)
			for _, cmd := range []string{"create", "run"} {
				h.FailRT("", cmd, "-b", b.Dir, b.ID)
				after := ""
				h.Await("the devices as they were", func() bool { after = deviceState(h, "v0") + deviceState(h, "v1"); return after == before })
				if r := h.RT("state", b.ID); r.Code == 0 {
					h.Errorf("%s: a container is left: %s", cmd, r.Stdout)
				}
			}
		})
	}
	row(t, "ND1 in a joined network namespace", func(h *H) {
		path := filepath.Join(h.TempDir(), "ns")
		h.File(path, "", 0o600)
		for _, c := range [][]string{{"unshare", "--net=" + path, "ip", "link", "set", "lo", "up"}} {
			if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
				h.Fatalf("%v: %s", c, out)
			}
		}
		h.Cleanup(func() { unix.Unmount(path, 0) })
		b := h.Bundle().Edit(`linux.netDevices={"v0":{"name":"c0"}}`, `linux.namespaces=[{"type":"pid"},{"type":"mount"},{"type":"ipc"},{"type":"uts"},{"type":"network","path":"`+path+`"}]`)
		veth("v0")(h, b)
		h.Want(h.Run(b.Sh("ip -o -4 addr show c0 | awk '{print $4}'")), "10.9.8.7/24\n10.9.8.8/24", 0)
		if out, err := exec.Command("nsenter", "--net="+path, "ip", "link", "show", "c0").CombinedOutput(); err != nil {
			h.Errorf("the device has left the namespace that outlives the container: %s", out)
		}
	})
	row(t, "ND1 create and start", func(h *H) {
		b := h.Bundle().Edit(`linux.netDevices={"v0":{"name":"c0"}}`, `hooks={"createRuntime":[{"path":"/bin/sh","args":["sh","-c","! ip link show v0"]}]}`)
		veth("v0")(h, b)
		h.Up(b.Sh("sleep 100"))
		h.Want(h.RT("exec", b.ID, "sh", "-c", names), "c0 lo", 0)
		h.MustRT("delete", "-f", b.ID)
	})
	row(t, "ND6 rootless", func(h *H) {
		b := rootless(h, `linux.netDevices={"lo":{}}`, `linux.namespaces+=[{"type":"network"}]`)
		if r := asUser(h, b, "run", "-b", b.Dir, b.ID); r.Code == 0 || ocitest.Tare() && !strings.Contains(r.Stderr, "rootless") {
			h.Errorf("status %d: %s", r.Code, r.Stderr)
		}
		h.NoLeak("the error")
	})
}
