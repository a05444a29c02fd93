package layer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestHostile unpacks archives that try to reach CANARY files beside the root, and checks what became of them inside. In the
// entries OUT stands for the absolute path of the directory outside.
func TestHostile(t *testing.T) {
	for _, c := range []struct {
		name    string
		entries []string
		want    string // names in the root afterwards, or "error: " and a part of the error
	}{
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
	} {
		for mode, whiteouts := range map[string]Whiteouts{"overlay": Overlay, "in place": InPlace} {
			t.Run(c.name+"/"+mode, func(t *testing.T) {
				can := newCanary(t, t.TempDir())
				out := filepath.Join(can.dir, "outside")
				var entries []string
				for _, e := range c.entries {
					entries = append(entries, strings.ReplaceAll(e, "OUT", out))
				}
				_, err := unpack(t, can.root, pack(t, entries...), Options{Whiteouts: whiteouts})
				can.check(t)
				if want, ok := strings.CutPrefix(c.want, "error: "); ok {
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Fatalf("error %v, not %q; tree %s", err, want, names(t, can.root))
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				got := names(t, can.root)
				if want, ok := strings.CutPrefix(c.want, "+"); ok {
					if !strings.Contains(" "+got+" ", " "+want+" ") {
						t.Fatalf("tree %s", got)
					}
				} else if got != c.want {
					t.Fatalf("tree %s\nnot  %s", got, c.want)
				}
			})
		}
	}
}

// TestHostileModes checks that attributes never reach what a link points to.
func TestHostileModes(t *testing.T) {
	can := newCanary(t, t.TempDir())
	if err := os.Symlink("../outside", filepath.Join(can.root, "s")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../file", filepath.Join(can.root, "f")); err != nil {
		t.Fatal(err)
	}
	mustUnpack(t, can.root, pack(t, "d s", "f f new", "d s/sub", "f s/sub/file x"), Options{Whiteouts: InPlace})
	can.check(t)
	if got := names(t, can.root); got != "f s/ s/sub/ s/sub/file" {
		t.Error(got)
	}
}
