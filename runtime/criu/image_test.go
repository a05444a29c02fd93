package criu

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// image writes an image file.
func image(t *testing.T, path string, magic uint32, list ...message) {
	t.Helper()
	out := binary.LittleEndian.AppendUint32(nil, magicCommon)
	out = binary.LittleEndian.AppendUint32(out, magic)
	for _, m := range list {
		out = append(binary.LittleEndian.AppendUint32(out, uint32(len(m))), m...)
	}
	if err := os.WriteFile(path, out, 0o600); err != nil {
		t.Fatal(err)
	}
}

func mountEntry(id, parent int64, point, key string, flags int64) message {
	m := message(nil).number(1, 5).number(2, id).number(3, 7).number(4, parent).number(5, flags).text(6, "/").text(7, point).
		text(8, "none").number(10, 3).number(11, 4)
	if key != "" {
		m = m.flag(13, true).text(18, key)
	}
	return m
}

func TestReadMounts(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "mountpoints-12.img")
	twice := append(mountEntry(2, 1, "/data", "k", 1), message(nil).number(5, 0)...) // criu takes the last of a field
	image(t, path, magicMounts, mountEntry(1, 0, "/", "", 1<<21), twice)
	got, err := ReadMounts(dir)
	want := []Mount{{ID: 1, Point: "/", Root: "/", Flags: 1 << 21, Type: 5, Source: "none"},
		{ID: 2, Parent: 1, Point: "/data", Root: "/", Type: 5, Source: "none", Key: "k", External: true}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	err = SetSharing(dir, func(m Mount) (Sharing, bool) { return Sharing{Master: 99}, m.Key == "k" })
	if err != nil {
		t.Fatal(err)
	}
	var groups [][2]uint64
	entries(path, magicMounts, func(entry []byte) error {
		var g [2]uint64
		groups = append(groups, g)
		return decode(entry, func(f field) error {
			if f.id == 10 || f.id == 11 {
				groups[len(groups)-1][f.id-10] = f.value
			}
			return nil
		})
	})
	if !reflect.DeepEqual(groups, [][2]uint64{{3, 4}, {0, 99}}) {
		t.Errorf("groups %v", groups)
	}
	if again, err := ReadMounts(dir); err != nil || !reflect.DeepEqual(again, want) {
		t.Errorf("after SetSharing: %+v, %v", again, err)
	}
	image(t, filepath.Join(dir, "mountpoints-13.img"), magicMounts)
	if _, err := ReadMounts(dir); err == nil || !strings.Contains(err.Error(), "2 mount namespaces") {
		t.Errorf("error %v", err)
	}
}

func TestCheckSeccomp(t *testing.T) {
	program, other := []byte("12345678"), "87654321"
	filter := func(p string, prev int64) message {
		m := message(nil).text(1, p)
		if prev >= 0 {
			m = m.number(2, prev)
		}
		return message(nil).nested(1, m)
	}
	thread := func(mode, n int64) message {
		return message(nil).number(1, 1).nested(5, message(nil).number(1, 0).number(11, mode).number(12, n))
	}
	leader := func(mode, n int64) message {
		return message(nil).number(1, 1).nested(3, message(nil).number(11, mode).number(12, n)).nested(5, message(nil).number(1, 0))
	}
	chain := append(append(filter(string(program), -1), filter(other, 0)...), filter(other, -1)...)
	for _, c := range []struct {
		name    string
		filters message
		threads []message
		want    string
	}{
		{"own filter", chain, []message{thread(2, 0)}, ""},
		{"below another", chain, []message{thread(2, 1), leader(2, 0)}, ""},
		{"without", chain, []message{thread(2, 0), thread(2, 2)}, "thread 1 of the images is not below"},
		{"off", chain, []message{thread(0, 0)}, "has no seccomp filter"},
		{"strict", chain, []message{thread(1, 0)}, "has no seccomp filter"},
		{"out of range", chain, []message{thread(2, 7)}, "is not below"},
		{"circle", append(filter(other, 1), filter(other, 0)...), []message{thread(2, 1)}, "is not below"},
		{"no image", nil, []message{thread(2, 0)}, "is not below"},
		{"no process", chain, nil, "the images have no process"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if c.filters != nil {
				image(t, filepath.Join(dir, "seccomp.img"), magicSeccomp, c.filters)
			}
			for i, m := range c.threads {
				image(t, filepath.Join(dir, "core-"+string(rune('0'+i))+".img"), magicCore, m)
			}
			err := CheckSeccomp(dir, program)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	dir := t.TempDir()
	image(t, filepath.Join(dir, "core-1.img"), magicCore, thread(0, 0), thread(2, 0))
	if err := CheckSeccomp(dir, program); err == nil || !strings.Contains(err.Error(), "more than one entry") {
		t.Errorf("two entries: %v", err)
	}
}

func TestCopyImages(t *testing.T) {
	base := t.TempDir()
	from, before := filepath.Join(base, "last"), filepath.Join(base, "pre")
	for _, d := range []string{from, before} {
		os.Mkdir(d, 0o700)
		os.WriteFile(filepath.Join(d, "core-1.img"), []byte("core"), 0o600)
		os.WriteFile(filepath.Join(d, "pages-1.img"), []byte("pages"), 0o600)
		os.WriteFile(filepath.Join(d, "dump.log"), []byte("log"), 0o600)
	}
	os.Symlink("../pre", filepath.Join(from, "parent"))
	to := t.TempDir()
	links, err := CopyImages(from, to)
	want := []Link{{filepath.Join(from, "pages-1.img"), "pages-1.img"}, {filepath.Join(before, "pages-1.img"), "parent/pages-1.img"}}
	if err != nil || len(links) != 2 || !(links[0] == want[0] && links[1] == want[1] || links[0] == want[1] && links[1] == want[0]) {
		t.Errorf("links %+v, %v", links, err)
	}
	for name, there := range map[string]bool{"core-1.img": true, "parent/core-1.img": true, "dump.log": false, "pages-1.img": false} {
		if _, err := os.Lstat(filepath.Join(to, name)); (err == nil) != there {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		spoil func(dir string)
		want  string
	}{
		"link":   {func(dir string) { os.Symlink("/etc/passwd", filepath.Join(dir, "core-2.img")) }, "is not a regular file"},
		"fifo":   {func(dir string) { os.Mkdir(filepath.Join(dir, "fs-1.img"), 0o700) }, "is not a regular file"},
		"parent": {func(dir string) { os.Symlink("/etc", filepath.Join(dir, "parent")) }, "is not below"},
		"circle": {func(dir string) { os.Symlink(".", filepath.Join(dir, "parent")) }, "dumps before this one"},
		"large":  {func(dir string) { os.Truncate(filepath.Join(dir, "core-1.img"), maxCopied+1) }, "is larger than 16 MiB"},
	} {
		dir := filepath.Join(base, name)
		os.Mkdir(dir, 0o700)
		os.WriteFile(filepath.Join(dir, "core-1.img"), nil, 0o600)
		c.spoil(dir)
		if _, err := CopyImages(dir, t.TempDir()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
}

func FuzzImages(f *testing.F) {
	f.Add([]byte(mountEntry(1, 0, "/", "k", 1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		image(t, filepath.Join(dir, "mountpoints-1.img"), magicMounts, data)
		image(t, filepath.Join(dir, "core-1.img"), magicCore, data)
		image(t, filepath.Join(dir, "seccomp.img"), magicSeccomp, data)
		ReadMounts(dir)
		SetSharing(dir, func(Mount) (Sharing, bool) { return Sharing{1, 2}, true })
		CheckSeccomp(dir, []byte("x"))
	})
}
