package imagetest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// Stamp is the time of the files in the corpora, with nanoseconds.
var Stamp = time.Unix(1_600_000_000, 123_456_789)

// Pack makes an archive of headers written in short: "d name", "f name content", "l name target", "h name target", "p name",
// "c name major:minor". A name ends at the first blank.
func Pack(t testing.TB, entries ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		kind, rest, _ := strings.Cut(e, " ")
		name, arg, _ := strings.Cut(rest, " ")
		h := &tar.Header{Name: name, Mode: 0o644, ModTime: Stamp, Format: tar.FormatPAX}
		content := ""
		switch kind {
		case "d":
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		case "f":
			h.Typeflag, content = tar.TypeReg, arg
		case "l":
			h.Typeflag, h.Linkname = tar.TypeSymlink, arg
		case "h":
			h.Typeflag, h.Linkname = tar.TypeLink, arg
		case "p":
			h.Typeflag = tar.TypeFifo
		case "c":
			h.Typeflag = tar.TypeChar
			_, err := fmt.Sscanf(arg, "%d:%d", &h.Devmajor, &h.Devminor)
			check(t, err)
		default:
			t.Fatalf("kind %q", kind)
		}
		h.Size = int64(len(content))
		check(t, w.WriteHeader(h))
		_, err := io.WriteString(w, content)
		check(t, err)
	}
	check(t, w.Close())
	return b.Bytes()
}

// A Case is a layer, in the short form of Pack, and what comes of it.
type Case struct {
	Name    string
	Entries []string
	Want    string // the names in the tree afterwards, directories with a slash
}

// Hostile are layers that try to reach files beside the root. In the entries OUT stands for the absolute path of the directory
// "outside" beside the root, where there is a directory "root-evil" too. Want begins with "error: " for a layer that is refused,
// and with "+" for one name that is there among others.
var Hostile = []Case{
	{"dots", []string{"f ../file x"}, "file"},
	{"more dots", []string{"f a/../../../outside/file x"}, "outside/ outside/file"},
	{"absolute", []string{"f /outside/file x"}, "outside/ outside/file"},
	{"sibling with the same prefix", []string{"f ../root-evil/file x"}, "root-evil/ root-evil/file"},
	{"relative link then through it", []string{"l s ../outside", "f s/file x", "f s/new x"}, "outside/ outside/file outside/new s"},
	{"absolute link then through it", []string{"l s OUT", "f s/file x"}, "+s"},
	{"link chain", []string{"l a ..", "l b a/../outside", "f b/file x"}, "a b outside/ outside/file"},
	{"link to the file", []string{"l s ../outside/file", "f s x"}, "s"},
	{"link replaced by directory", []string{"l s ../outside", "d s", "f s/file x"}, "s/ s/file"},
	{"directory replaced by link", []string{"d s", "f s/keep x", "l s ../outside", "f s/file x"}, "outside/ outside/file s"},
	{"nested directory replaced by link", []string{"d a", "d a/s", "f a/s/1 x", "l a ../outside", "f a/s/2 x"}, "a outside/ outside/s/ outside/s/2"},
	{"hard link outside", []string{"h h ../outside/file"}, "error: no such file"},
	{"hard link outside, absolute", []string{"h h OUT/file"}, "error: no such file"},
	{"hard link through a link", []string{"l s ../outside", "h h s/file"}, "error: no such file"},
	{"hard link to a link, written through", []string{"l s ../outside/file", "h h s", "f h x"}, "h s"},
	{"root as link", []string{"l . ../outside", "f file x"}, "error: the root is not a directory"},
	{"root as ./ link", []string{"l ./ ../outside", "f file x"}, "error: the root is not a directory"},
	{"root as file", []string{"f . x"}, "error: the root is not a directory"},
	{"root by dots as link", []string{"l a/.. ../outside"}, "error: the root is not a directory"},
	{"hard link to the root", []string{"h h /"}, "error: hard link to the root"},
	{"hard link to a directory", []string{"d d", "h h d"}, "error: operation not permitted"},
	{"whiteout through a link", []string{"l s ../outside", "f s/.wh.file"}, "+s"},
	{"opaque through a link", []string{"l s ../outside", "f s/.wh..wh..opq"}, "+s"},
	{"whiteout of dots", []string{"f a/.wh..."}, "error: whiteout of no name"},
	{"whiteout of nothing", []string{"f .wh."}, "error: whiteout of no name"},
	{"whiteout of a dot", []string{"f .wh.."}, "error: whiteout of no name"},
	{"below a whiteout", []string{"f a/.wh.b/c x"}, "error: begins with"},
	{"link loop", []string{"l a b", "l b a", "f a/x x"}, "error: symbolic links"},
	{"self link", []string{"l a a", "f a/x x"}, "error: symbolic links"},
	{"growing link", []string{"l a a/a/a/a/a/a/a/a", "f a/x x"}, "error: symbolic links"},
	{"file as parent", []string{"f a x", "f a/b x"}, "error: not a directory"},
	{"fifo as parent", []string{"p a", "f a/b x"}, "error: not a directory"},
	{"fake whiteout device", []string{"c x 0:0"}, "error: overlayfs's mark"},
	{"empty link", []string{"l a "}, "error: no such file"},
	{"long component", []string{"f " + strings.Repeat("x", 300) + " y"}, "error: file name too long"},
	{"proc as link", []string{"l p /proc/self/root", "f p/file x"}, "+p"},
}

// WhiteoutBase is the layer below each of Whiteouts.
var WhiteoutBase = []string{"d a", "d a/b", "f a/b/1 one", "f a/b/2 two", "f a/f file", "d e", "f e/x x", "f e/y y", "l l a"}

// Whiteouts are layers that remove and replace what WhiteoutBase has.
var Whiteouts = []Case{
	{"nothing", nil, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x e/y l"},
	{"file", []string{"f a/.wh.f"}, "a/ a/b/ a/b/1 a/b/2 e/ e/x e/y l"},
	{"directory", []string{"f a/.wh.b"}, "a/ a/f e/ e/x e/y l"},
	{"link", []string{"f .wh.l"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x e/y"},
	{"missing name and parent", []string{"f .wh.no", "f no/.wh.no"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x e/y l"},
	{"parent is a file", []string{"f a/f/.wh.no"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x e/y l"},
	{"same layer, file first", []string{"f a/f new", "f a/.wh.f"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x e/y l"},
	{"same layer, whiteout first", []string{"f a/.wh.f", "f a/f new"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x e/y l"},
	{"same layer, directory first", []string{"d a/b", "f a/b/3 x", "f a/.wh.b"}, "a/ a/b/ a/b/3 a/f e/ e/x e/y l"},
	{"same layer, whiteout before directory", []string{"f a/.wh.b", "d a/b", "f a/b/3 x"}, "a/ a/b/ a/b/3 a/f e/ e/x e/y l"},
	{"same layer, only the child has an entry", []string{"f a/b/3 x", "f a/.wh.b"}, "a/ a/b/ a/b/3 a/f e/ e/x e/y l"},
	{"opaque first", []string{"d e", "f e/.wh..wh..opq", "f e/z z"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/z l"},
	{"opaque last", []string{"d e", "f e/z z", "f e/.wh..wh..opq"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/z l"},
	{"opaque before its directory", []string{"f e/.wh..wh..opq", "d e", "f e/z z"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/z l"},
	{"opaque above a kept directory", []string{"f a/b/3 x", "f a/.wh..wh..opq"}, "a/ a/b/ a/b/3 e/ e/x e/y l"},
	{"opaque and a new lower name", []string{"f e/.wh..wh..opq", "f e/x new"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x l"},
	{"opaque of a missing directory", []string{"d n", "f n/.wh..wh..opq", "f n/f x"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x e/y l n/ n/f"},
	{"aufs's own files", []string{"d .wh..wh.plnk", "f .wh..wh.plnk/1.2 x", "f .wh..wh.aufs ", "f e/.wh..wh.orph "}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x e/y l"},
	{"through a lower link", []string{"f l/.wh.f", "f l/g x"}, "a/ a/b/ a/b/1 a/b/2 a/g e/ e/x e/y l"},
	{"file over directory", []string{"f a/b x"}, "a/ a/b a/f e/ e/x e/y l"},
	{"directory over file", []string{"d a/f", "f a/f/in x"}, "a/ a/b/ a/b/1 a/b/2 a/f/ a/f/in e/ e/x e/y l"},
	{"directory over link", []string{"d l", "f l/in x"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x e/y l/ l/in"},
	{"link over directory", []string{"l a e"}, "a e/ e/x e/y l"},
	{"directory over directory", []string{"d a/b"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x e/y l"},
	{"file and then directory", []string{"f a/b x", "d a/b", "f a/b/3 x"}, "a/ a/b/ a/b/3 a/f e/ e/x e/y l"},
	{"hard link to a lower file", []string{"h e/h a/f"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/h e/x e/y l"},
	{"hard link to a lower link", []string{"h e/h l"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/h e/x e/y l"},
	{"hard link over its target", []string{"h a/f a/f"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x e/y l"},
	{"hard link through a lower link", []string{"h h l/b/1"}, "a/ a/b/ a/b/1 a/b/2 a/f e/ e/x e/y h l"},
}
