package imagetest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A Stack is the layers of an image that is legal, but odd.
type Stack struct {
	Name   string
	Layers [][]byte // uncompressed, the lowest first
	// Umoci says why what umoci unpacks of it is not to be compared with; empty if it is.
	Umoci string
}

const (
	// Capability is the value of security.capability that gives cap_net_raw=ep.
	Capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	xattr      = "SCHILY.xattr."
)

// Odd returns images that occur, or may occur, and that unpackers get wrong.
func Odd(t testing.TB) []Stack {
	t.Helper()
	all := append(oddNames(t), oddAttributes(t)...)
	return append(append(all, oddStacks(t)...), oddSparse(t)...)
}

func oddNames(t testing.TB) []Stack {
	long := strings.Repeat("long-name-", 24)
	many := []string{"d many"}
	dirs := []string{"d " + long, "d " + long + "/" + long}
	for i := range 10_000 {
		many = append(many, fmt.Sprintf("f many/%05d %d", i, i))
	}
	return []Stack{
		{Name: "absolute links in parents", Layers: [][]byte{Pack(t, "d run", "d var", "l var/run /run", "f var/run/pid 1", "l lock /var/run/lock", "f lock/a x")},
			Umoci: "a directory that is only reached through a link loses its time"},
		{Name: "links that lead nowhere, or to themselves", Layers: [][]byte{Pack(t, "l a /none/at/all", "l b b", "l c ../../../etc/passwd", "l d ./")}},
		{Name: "300-byte names, PAX", Layers: [][]byte{Pack(t, append(dirs, "f "+long+"/"+long+"/name x", "l link "+long+"/"+long+"/name", "h hard "+long+"/"+long+"/name")...)}},
		{Name: "300-byte names, GNU", Umoci: "directories that have no entry get the time of unpacking", Layers: [][]byte{Tar(t,
			Entry{Header: tar.Header{Name: long + "/" + long + "/name", Format: tar.FormatGNU, ModTime: Stamp.Truncate(time.Second)}, Content: "x"},
			Entry{Header: tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: long + "/" + long, Format: tar.FormatGNU, ModTime: Stamp.Truncate(time.Second)}})}},
		{Name: "10 000 files in a directory", Umoci: "right, but it takes ten seconds", Layers: [][]byte{Pack(t, many...)}},
		{Name: "the same name twice", Layers: [][]byte{Pack(t, "f a x", "f a y", "l a z", "d a", "f a/b x", "d a")}},
		{Name: "parents after children", Layers: [][]byte{Pack(t, "f a/b/c x", "d a/b", "d a")}},
		{Name: "names with dots and slashes", Layers: [][]byte{Pack(t, "d ./", "d ./a", "f ./a/../a//b x", "f /c x", "h d ./c")}},
		{Name: "bytes that are no UTF-8", Layers: [][]byte{Tar(t, Entry{Header: tar.Header{Name: "\xff\xfe", Format: tar.FormatGNU, ModTime: Stamp.Truncate(time.Second)}, Content: "x"})}},
	}
}

func oddAttributes(t testing.TB) []Stack {
	pax := func(h tar.Header, x map[string]string) Entry {
		h.Format, h.ModTime, h.PAXRecords = tar.FormatPAX, Stamp, map[string]string{}
		for k, v := range x {
			h.PAXRecords[xattr+k] = v
		}
		return Entry{Header: h}
	}
	gnu := func(h tar.Header) Entry {
		h.Format, h.ModTime = tar.FormatGNU, time.Unix(-1000, 0) // both a time before 1970 and large numbers are in base 256
		return Entry{Header: h}
	}
	return []Stack{
		{Name: "FIFO and devices", Layers: [][]byte{Pack(t, "p fifo", "c null 1:3", "d dev", "c dev/big 300:70000")}},
		{Name: "numbers in base 256", Layers: [][]byte{Tar(t, gnu(tar.Header{Name: "f", Uid: 3_000_000, Gid: 2_500_000}), gnu(tar.Header{Name: "d/", Uid: 2_097_152}))}},
		{Name: "owners beyond 2097151 in PAX", Layers: [][]byte{Tar(t, pax(tar.Header{Name: "f", Uid: 4_000_000_000 & 0x7fffffff, Gid: 2_097_153}, nil))}},
		{Name: "global header", Umoci: "it refuses the archive", Layers: [][]byte{Tar(t,
			Entry{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "0123", "path": "evil", "uid": "7"}}},
			pax(tar.Header{Name: "f"}, nil))}},
		{Name: "file capabilities of another owner's program", Layers: [][]byte{Tar(t,
			pax(tar.Header{Name: "ping", Mode: 0o755, Uid: 7, Gid: 8}, map[string]string{"security.capability": Capability}),
			pax(tar.Header{Name: "suid", Mode: 0o6755, Uid: 7, Gid: 8}, nil))}},
		{Name: "attributes of everything", Umoci: "an empty attribute is lost", Layers: [][]byte{Tar(t,
			pax(tar.Header{Name: "d/", Mode: 0o1777}, map[string]string{"user.a": "1", "trusted.b": "\x00\xff"}),
			pax(tar.Header{Name: "d/f"}, map[string]string{"user.a": "", "trusted.b": "2"}),
			pax(tar.Header{Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: "f", Mode: 0o777}, map[string]string{"trusted.b": "3"}))}},
		{Name: "times of directories", Layers: [][]byte{Pack(t, "d a", "d a/b", "d c", "f a/b/x x", "f c/y y", "f a/z z", "l a/b/l x", "h c/h a/b/x")}},
		{Name: "read-only and set-group-id directories", Layers: [][]byte{Tar(t,
			pax(tar.Header{Name: "ro/", Mode: 0o555}, nil), pax(tar.Header{Name: "none/", Mode: 0o1000}, nil), pax(tar.Header{Name: "sg/", Mode: 0o2775, Gid: 9}, nil),
			pax(tar.Header{Name: "ro/f"}, nil), pax(tar.Header{Name: "none/f", Mode: 0o1}, nil), pax(tar.Header{Name: "sg/f"}, nil), pax(tar.Header{Name: "sg/d/"}, nil))}},
		{Name: "modes that a umask would take bits of", Layers: [][]byte{Tar(t, pax(tar.Header{Name: "f", Mode: 0o666}, nil), pax(tar.Header{Name: "g", Mode: 0o4777}, nil),
			pax(tar.Header{Name: "d/", Mode: 0o777}, nil))}},
	}
}

func oddStacks(t testing.TB) []Stack {
	base := Pack(t, "d a", "f a/f file", "d e", "f e/x x", "l l a", "d usr", "d usr/lib", "l lib usr/lib")
	return []Stack{
		{Name: "hard links into a lower layer", Layers: [][]byte{base, Pack(t, "h h a/f", "h a/g a/f", "h s l")}},
		{Name: "opaque marker last", Layers: [][]byte{base, Pack(t, "d e", "f e/new x", "f e/.wh..wh..opq")}},
		{Name: "whiteout after the file", Layers: [][]byte{base, Pack(t, "f a/f new", "f a/.wh.f")}},
		{Name: "whiteout before the file", Layers: [][]byte{base, Pack(t, "f a/.wh.f", "f a/f new")}},
		{Name: "whiteout and directory of one name", Layers: [][]byte{base, Pack(t, "f .wh.e", "d e", "f e/new x")}},
		{Name: "through a lower link", Layers: [][]byte{base, Pack(t, "f lib/libc.so x", "f l/g x", "f l/.wh.f")}},
		{Name: "removed and made again", Layers: [][]byte{base, Pack(t, "f .wh.a"), Pack(t, "d a", "f a/new x")}},
		{Name: "opaque root", Layers: [][]byte{base, Pack(t, "f only x", "f .wh..wh..opq"), Pack(t, "f more x")}},
		{Name: "the same layer twice", Layers: [][]byte{base, Pack(t, "f .wh.e", "f a/f new"), base}},
		{Name: "empty layers", Layers: [][]byte{Pack(t), base, Pack(t), make([]byte, 1024), Pack(t)}},
		{Name: "whiteouts in the lowest layer", Layers: [][]byte{Pack(t, "d a", "f a/f x", "f a/.wh.g", "f b/.wh.c", "f .wh.d", "f a/.wh..wh..opq")}},
		{Name: "kinds replaced by others", Layers: [][]byte{base, Pack(t, "f a x", "d l", "f l/in x", "l e usr", "p lib")}},
	}
}

// oddSparse has GNU tar pack a file with holes in each of its formats.
func oddSparse(t testing.TB) []Stack {
	tree := t.TempDir()
	f, err := os.Create(filepath.Join(tree, "sparse"))
	check(t, err)
	for _, at := range []int64{0, 1 << 20, 3<<20 - 7} {
		_, err := f.WriteAt([]byte("data"), at)
		check(t, err)
	}
	check(t, f.Truncate(5<<20))
	check(t, f.Close())
	check(t, os.Chtimes(f.Name(), Stamp, Stamp))
	var all []Stack
	for _, format := range []string{"--format=gnu", "--format=pax --sparse-version=0.0", "--format=pax --sparse-version=0.1", "--format=pax --sparse-version=1.0"} {
		cmd := exec.Command("tar", append(strings.Fields(format), "--sparse", "--owner=0", "--group=0", "-cf", "-", "-C", tree, "sparse")...)
		out, err := cmd.Output()
		check(t, err)
		if !bytes.Contains(out, []byte("sparse")) || len(out) > 1<<20 {
			t.Fatalf("tar %s made no sparse archive: %d bytes", format, len(out))
		}
		c := Stack{Name: "sparse file, " + format, Layers: [][]byte{out}}
		if format == "--format=gnu" {
			c.Umoci = "it refuses the archive"
		}
		all = append(all, c)
	}
	return all
}
