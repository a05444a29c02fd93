package lifecycle

import (
	"slices"
	"strings"
	"testing"

	"github.com/tare-oci/tare/internal/mountinfo"
	"github.com/tare-oci/tare/runtime/criu"
)

const hostTable = `1 0 8:1 / / rw shared:1 - ext4 /dev/sda rw
2 1 0:5 / /dev rw shared:2 - devtmpfs dev rw
3 1 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup rw
`

const containerTable = `10 9 8:1 /b/rootfs / rw,relatime master:1 - ext4 /dev/sda rw
11 10 0:40 / /proc rw,relatime - proc proc rw
14 10 0:41 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k
13 11 0:40 /sys /proc/sys ro,relatime - proc proc rw
12 11 0:5 /null /proc/kcore ro,nosuid master:2 - devtmpfs dev rw
15 10 8:1 /data /data ro,relatime master:1 - ext4 /dev/sda rw
16 15 8:1 /more /data rw,relatime - ext4 /dev/sda rw
`

func table(t *testing.T, text string) *mountTable {
	t.Helper()
	m, err := newMountTable(mountinfo.Parse(text), mountinfo.Parse(hostTable))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMountTable(t *testing.T) {
	var got []string
	for _, m := range table(t, containerTable).mounts {
		got = append(got, strings.TrimSpace(m.Point+" "+m.key))
	}
	want := []string{"/", "/data tare-mount-0", "/data tare-mount-1", "/dev", "/proc", "/proc/kcore tare-mount-2", "/proc/sys"}
	if !slices.Equal(got, want) {
		t.Errorf("order %q, want %q", got, want)
	}
	if err := table(t, containerTable).checkKeys(); err == nil || !strings.Contains(err.Error(), `mount on "/data": another one is on the same place`) {
		t.Errorf("error %v", err)
	}
	for _, point := range []string{`/a]:b`, `/a[`, `/a\012b`} {
		if err := table(t, strings.Replace(containerTable, " /data ro", " "+point+" ro", 1)).checkKeys(); err == nil || !strings.Contains(err.Error(), "cannot name a place") {
			t.Errorf("%s: error %v", point, err)
		}
	}
	if err := table(t, strings.Replace(containerTable, " /dev rw", " /]: rw", 1)).checkKeys(); err == nil || strings.Contains(err.Error(), "cannot name") {
		t.Errorf("a mount without a key: %v", err)
	}
	for _, bad := range []string{"", "10 9 8:1 / / rw - ext4 x rw\n11 8 8:1 / /x rw - ext4 x rw\n"} {
		if _, err := newMountTable(mountinfo.Parse(bad), nil); err == nil {
			t.Errorf("%q gives no error", bad)
		}
	}
}

func TestCompareMounts(t *testing.T) {
	want := table(t, containerTable)
	// Other numbers, another order, other devices for the container's own file systems.
	same := strings.NewReplacer("0:40", "0:50", "0:41", "0:51", "10 9", "20 9", " 10 ", " 20 ").Replace(containerTable)
	lines := strings.SplitAfter(same, "\n")
	slices.Reverse(lines)
	if err := want.compare(table(t, strings.Join(lines, ""))); err != nil {
		t.Error(err)
	}
	for _, c := range []struct{ old, new, want string }{
		{"/data /data ro", "/data /data rw", "mount on /data: options are rw,relatime, not ro,relatime"},
		{"/data /data ro", "/etc /data ro", "it shows /etc, not /data"},
		{"8:1 /data", "8:2 /data", "it shows device 8:2, not 8:1"},
		{"0:41 /", "0:5 /", "it shows device 0:5"},
		{"size=65536k", "size=1k", "options of the file system are rw,size=1k, not rw,size=65536k"},
		{"- tmpfs tmpfs", "- devtmpfs tmpfs", "file system is devtmpfs, not tmpfs"},
		{"0:40 /sys", "0:60 /sys", "mount on /proc/sys shows another file system"},
		{"0:41 /", "0:40 /", "shows another file system"},
		{"- ext4 /dev/sda rw\n16", "- ext4 /dev/sda rw\n16", ""},
		{"ro,relatime master:1", "ro,relatime shared:1", "it is shared, not slave"},
		{"13 11 0:40 /sys /proc/sys ro,relatime - proc proc rw\n", "", "there is no mount on /proc/sys"},
		{"16 15", "16 10", "there is a mount on /data where /data is expected"},
	} {
		if !strings.Contains(containerTable, c.old) {
			t.Fatalf("%q is not in the table", c.old)
		}
		err := want.compare(table(t, strings.Replace(containerTable, c.old, c.new, 1)))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q for %q: error %v, want %q", c.new, c.old, err, c.want)
		}
	}
	more := containerTable + "17 10 0:42 / /x rw - tmpfs x rw\n"
	if err := want.compare(table(t, more)); err == nil || err.Error() != "there is another mount on /x" {
		t.Errorf("error %v", err)
	}
}

func imagesOf(m *mountTable) (list []criu.Mount) {
	for i := range m.mounts {
		t := map[string]int{"proc": 1, "tmpfs": 5}[m.mounts[i].FSType]
		list = append(list, criu.Mount{ID: m.mounts[i].ID, Parent: m.mounts[i].Parent, Point: m.mounts[i].Point, Root: m.mounts[i].Root,
			Type: t, Flags: mountFlags(m.mounts[i].Options), Key: m.mounts[i].key, External: m.mounts[i].key != ""})
	}
	slices.Reverse(list)
	return list
}

func TestCompareImages(t *testing.T) {
	want := table(t, containerTable)
	if err := want.compareImages(imagesOf(want)); err != nil {
		t.Error(err)
	}
	find := func(list []criu.Mount, point string) *criu.Mount {
		return &list[slices.IndexFunc(list, func(m criu.Mount) bool { return m.Point == point })]
	}
	for _, c := range []struct {
		name   string
		change func(list []criu.Mount) []criu.Mount
		want   string
	}{
		{"flags", func(l []criu.Mount) []criu.Mount { find(l, "/proc/kcore").Flags = 0; return l }, "its flags in the images are 0x0, not 0x3"},
		{"key", func(l []criu.Mount) []criu.Mount { find(l, "/proc/kcore").Key = "tare-mount-0"; return l }, `its key in the images is "tare-mount-0"`},
		{"key that is not external", func(l []criu.Mount) []criu.Mount { find(l, "/dev").Key = "x"; return l }, `its key in the images is "x", not ""`},
		{"external without a key", func(l []criu.Mount) []criu.Mount { find(l, "/dev").External = true; return l }, `its key in the images is ""`},
		{"type", func(l []criu.Mount) []criu.Mount { find(l, "/dev").Type = 1; return l }, "its file system in the images is proc, not tmpfs"},
		{"devtmpfs", func(l []criu.Mount) []criu.Mount { find(l, "/dev").Type = 3; return l }, "criu cannot restore its file system"},
		{"root", func(l []criu.Mount) []criu.Mount { find(l, "/proc/sys").Root = "/"; return l }, `it shows "/" in the images`},
		{"one less", func(l []criu.Mount) []criu.Mount { return l[1:] }, "the images have no mount on"},
		{"one more", func(l []criu.Mount) []criu.Mount {
			return append(l, criu.Mount{ID: 99, Parent: 10, Point: "/zz"})
		}, `the images have a mount on "/zz"`},
		{"two roots", func(l []criu.Mount) []criu.Mount { return append(l, criu.Mount{ID: 99, Parent: 98, Point: "/"}) }, "two roots"},
		{"number twice", func(l []criu.Mount) []criu.Mount { return append(l, l[0]) }, "two mounts with number"},
		{"circle", func(l []criu.Mount) []criu.Mount {
			return append(l, criu.Mount{ID: 98, Parent: 99}, criu.Mount{ID: 99, Parent: 98})
		}, "in a circle"},
		{"nothing", func([]criu.Mount) []criu.Mount { return nil }, "the images have no root"},
	} {
		err := want.compareImages(c.change(imagesOf(want)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
}
