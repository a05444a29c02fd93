package lifecycle

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tare-oci/tare/internal/mountinfo"
	"github.com/tare-oci/tare/runtime/criu"
)

// mountTable is a container's mounts in an order that depends on nothing but where they are: the root, then depth first, what is
// mounted on one mount in the order of its places. So it is the same for all containers of one configuration, however they came
// about.
type mountTable struct {
	mounts []tableMount
}

// tableMount is a mount of the table.
type tableMount struct {
	mountinfo.Mount
	depth int    // how many mounts it hangs below
	host  bool   // its file system is mounted on the host too
	key   string // of a mount that comes from the host, as the images name it; empty: criu makes it
}

// readMounts reads the table of process pid.
func readMounts(pid int) (*mountTable, error) {
	list, err := mountinfo.Of(pid)
	if err != nil {
		return nil, err
	}
	own, err := mountinfo.Self()
	if err != nil {
		return nil, err
	}
	return newMountTable(list, own)
}

// newMountTable orders list, and gives keys to what comes from the host, whose mounts are own.
func newMountTable(list, own []mountinfo.Mount) (*mountTable, error) {
	devices := map[string]bool{}
	for i := range own {
		devices[own[i].Device] = true
	}
	children, root := map[int][]mountinfo.Mount{}, -1
	ids := map[int]bool{}
	for i := range list {
		ids[list[i].ID] = true
	}
	for i, m := range list {
		if !ids[m.Parent] || m.Parent == m.ID {
			if root >= 0 {
				return nil, fmt.Errorf("the table of mounts has two roots: %s and %s", list[root].Point, m.Point)
			}
			root = i
			continue
		}
		children[m.Parent] = append(children[m.Parent], m)
	}
	if root < 0 {
		return nil, fmt.Errorf("the table of mounts has no root")
	}
	t := &mountTable{}
	t.add(list[root], children, devices, 0)
	keys := 0
	for i := range t.mounts {
		if m := &t.mounts[i]; m.external() && m.depth > 0 {
			m.key = "tare-mount-" + strconv.Itoa(keys)
			keys++
		}
	}
	return t, nil
}

func (t *mountTable) add(m mountinfo.Mount, children map[int][]mountinfo.Mount, devices map[string]bool, depth int) {
	t.mounts = append(t.mounts, tableMount{Mount: m, depth: depth, host: devices[m.Device]})
	below := children[m.ID]
	slices.SortStableFunc(below, func(a, b mountinfo.Mount) int { return strings.Compare(a.Point, b.Point) })
	for _, c := range below {
		t.add(c, children, devices, depth+1)
	}
}

// external tells whether a mount is a piece of the host's tree, which the images do not hold. The kernel's own file systems are not:
// criu mounts them, and what they show depends on the namespaces.
func (m *tableMount) external() bool {
	switch m.FSType {
	case "proc", "sysfs", "mqueue":
		return false
	}
	return m.host
}

// checkKeys refuses mounts that criu cannot tell apart: it knows them by their places, as text.
func (t *mountTable) checkKeys() error {
	count := map[string]int{}
	for i := range t.mounts {
		count[t.mounts[i].Point]++
	}
	for i := range t.mounts {
		m := &t.mounts[i]
		switch {
		case m.key == "":
		case strings.ContainsAny(m.Point, "[]\n"):
			return fmt.Errorf("mount on %q: criu cannot name a place with brackets or newlines in it", m.Point)
		case count[m.Point] > 1:
			return fmt.Errorf("mount on %q: another one is on the same place, and criu cannot tell them apart", m.Point)
		}
	}
	return nil
}

// compare returns how got differs from t, nil if it is the same: the same places, file systems, roots and flags, and from the host
// what t has from the host. Names of sources are for people and are not compared.
func (t *mountTable) compare(got *mountTable) error {
	devices, back := map[string]string{}, map[string]string{}
	for i := range max(len(t.mounts), len(got.mounts)) {
		if i >= len(t.mounts) {
			return fmt.Errorf("there is another mount on %s", got.mounts[i].Point)
		}
		want := &t.mounts[i]
		if i >= len(got.mounts) {
			return fmt.Errorf("there is no mount on %s", want.Point)
		}
		m := &got.mounts[i]
		if m.Point != want.Point || m.depth != want.depth {
			return fmt.Errorf("there is a mount on %s where %s is expected", m.Point, want.Point)
		}
		if err := want.compare(m); err != nil {
			return fmt.Errorf("mount on %s: %w", m.Point, err)
		}
		if want.host {
			continue
		}
		// A file system of the container's own is another one than the template's, but the same for the same mounts.
		known, ok := devices[want.Device]
		other, taken := back[m.Device]
		if ok && known != m.Device || taken && other != want.Device {
			return fmt.Errorf("mount on %s shows another file system", m.Point)
		}
		devices[want.Device], back[m.Device] = m.Device, want.Device
	}
	return nil
}

func (m *tableMount) compare(got *tableMount) error {
	switch {
	case got.FSType != m.FSType:
		return fmt.Errorf("file system is %s, not %s", got.FSType, m.FSType)
	case got.Root != m.Root:
		return fmt.Errorf("it shows %s, not %s", got.Root, m.Root)
	case got.host != m.host || m.host && got.Device != m.Device:
		return fmt.Errorf("it shows device %s, not %s", got.Device, m.Device)
	case !sameOptions(got.Options, m.Options):
		return fmt.Errorf("options are %s, not %s", got.Options, m.Options)
	case !m.host && !sameOptions(got.Super, m.Super):
		return fmt.Errorf("options of the file system are %s, not %s", got.Super, m.Super)
	case peersKind(got.Peers) != peersKind(m.Peers):
		return fmt.Errorf("it is %s, not %s", peersKind(got.Peers), peersKind(m.Peers))
	}
	return nil
}

// peersKind is the propagation of a mount in words.
func peersKind(peers string) string {
	shared, slave := strings.Contains(peers, "shared:"), strings.Contains(peers, "master:")
	switch {
	case shared && slave:
		return "shared and slave"
	case shared:
		return "shared"
	case slave:
		return "slave"
	}
	return "private"
}

// sameOptions compares options whatever their order.
func sameOptions(a, b string) bool {
	x, y := strings.Split(a, ","), strings.Split(b, ",")
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

// compareImages compares what images describe with the table, as far as it can be told before anything is mounted.
func (t *mountTable) compareImages(images []criu.Mount) error {
	got, err := orderImages(images)
	if err != nil {
		return err
	}
	for i := range max(len(t.mounts), len(got)) {
		switch {
		case i >= len(t.mounts):
			return fmt.Errorf("the images have a mount on %q, which the configuration has not", got[i].Point)
		case i >= len(got) || got[i].Point != t.mounts[i].Point:
			return fmt.Errorf("the images have no mount on %q", t.mounts[i].Point)
		}
		want, m := &t.mounts[i], &got[i]
		name, known := criuType(m)
		flags := mountFlags(want.Options)
		switch {
		case m.Key != want.key || i > 0 && (m.External || m.Key != "") != (want.key != ""):
			return fmt.Errorf("mount on %q: its key in the images is %q, not %q", want.Point, m.Key, want.key)
		case m.Flags&comparedFlags != flags:
			return fmt.Errorf("mount on %q: its flags in the images are %#x, not %#x (%s)", want.Point, m.Flags&comparedFlags, flags,
				want.Options)
		case want.key == "" && i > 0 && known && name != want.FSType:
			return fmt.Errorf("mount on %q: its file system in the images is %s, not %s", want.Point, name, want.FSType)
		case want.key == "" && i > 0 && !known:
			return fmt.Errorf("mount on %q: criu cannot restore its file system, %s", want.Point, want.FSType)
		case want.key == "" && i > 0 && m.Root != want.Root:
			return fmt.Errorf("mount on %q: it shows %q in the images, not %q", want.Point, m.Root, want.Root)
		}
	}
	return nil
}

// ownGroup is the first of the numbers that sharing gives.
const ownGroup = 1 << 30

// sharing returns what decides the groups of the mounts of images: those of the table. criu takes the peers and the master of a mount
// over from where it comes from, and gets that wrong for several mounts of one group; so each has a group of its own.
func (t *mountTable) sharing() func(m criu.Mount) (criu.Sharing, bool) {
	return func(m criu.Mount) (criu.Sharing, bool) {
		for i := range t.mounts {
			want := &t.mounts[i]
			if m.Point != want.Point || m.Key != want.key || i > 0 && want.key == "" {
				continue
			}
			var s criu.Sharing
			if strings.Contains(want.Peers, "shared:") {
				s.Shared = ownGroup + uint32(2*i)
			}
			if strings.Contains(want.Peers, "master:") {
				s.Master = ownGroup + uint32(2*i+1)
			}
			return s, true
		}
		return criu.Sharing{}, false
	}
}

// orderImages puts the mounts of images in the order of a mountTable.
func orderImages(images []criu.Mount) (out []criu.Mount, err error) {
	children, ids, root := map[int][]criu.Mount{}, map[int]bool{}, -1
	for _, m := range images {
		if ids[m.ID] {
			return nil, fmt.Errorf("the images have two mounts with number %d", m.ID)
		}
		ids[m.ID] = true
	}
	for i, m := range images {
		if ids[m.Parent] && m.Parent != m.ID {
			children[m.Parent] = append(children[m.Parent], m)
			continue
		}
		if root >= 0 {
			return nil, fmt.Errorf("the images have two roots")
		}
		root = i
	}
	if root < 0 {
		return nil, fmt.Errorf("the images have no root")
	}
	var add func(m criu.Mount)
	add = func(m criu.Mount) {
		out = append(out, m)
		below := children[m.ID]
		slices.SortStableFunc(below, func(a, b criu.Mount) int { return strings.Compare(a.Point, b.Point) })
		for _, c := range below {
			add(c)
		}
	}
	add(images[root])
	if len(out) != len(images) {
		return nil, fmt.Errorf("the images have mounts that hang below each other in a circle")
	}
	return out, nil
}

// criuType is the name of a file system that criu makes by itself for an image (its images/mnt.proto).
func criuType(m *criu.Mount) (string, bool) {
	switch m.Type {
	case 1:
		return "proc", true
	case 2:
		return "sysfs", true
	case 5:
		return "tmpfs", true
	case 6:
		return "devpts", true
	case 14:
		return "mqueue", true
	}
	return "", false
}

// comparedFlags are the flags of a mount that are compared, as MS_*.
const comparedFlags = 1 | 2 | 4 | 8 | 1024 | 2048 | 1<<21

// mountFlags turns the options of a mount table to MS_*.
func mountFlags(options string) (flags uint64) {
	for _, o := range strings.Split(options, ",") {
		switch o {
		case "ro":
			flags |= 1
		case "nosuid":
			flags |= 2
		case "nodev":
			flags |= 4
		case "noexec":
			flags |= 8
		case "noatime":
			flags |= 1024
		case "nodiratime":
			flags |= 2048
		case "relatime":
			flags |= 1 << 21
		}
	}
	return flags
}
