package layer

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tare-oci/tare/image/internal/imagetest"
)

// TestHostile unpacks archives that try to reach CANARY files beside the root, and checks what became of them inside. In the
// entries OUT stands for the absolute path of the directory outside.
func TestHostile(t *testing.T) {
	for _, c := range imagetest.Hostile {
		for mode, whiteouts := range map[string]Whiteouts{"overlay": Overlay, "marks": Marks, "in place": InPlace} {
			t.Run(c.Name+"/"+mode, func(t *testing.T) {
				can := newCanary(t, t.TempDir())
				out := filepath.Join(can.dir, "outside")
				var entries []string
				for _, e := range c.Entries {
					entries = append(entries, strings.ReplaceAll(e, "OUT", out))
				}
				_, err := unpack(t, can.root, pack(t, entries...), Options{Whiteouts: whiteouts})
				can.check(t)
				if want, ok := strings.CutPrefix(c.Want, "error: "); ok {
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Fatalf("error %v, not %q; tree %s", err, want, names(t, can.root))
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				got := names(t, can.root)
				if whiteouts == Marks { // which say what this layer hides
					got = strings.Join(slices.DeleteFunc(strings.Fields(got), func(n string) bool { return strings.Contains(n, whiteoutPrefix) }), " ")
				}
				if want, ok := strings.CutPrefix(c.Want, "+"); ok {
					if !strings.Contains(" "+got+" ", " "+want+" ") {
						t.Fatalf("tree %s", got)
					}
				} else if got != c.Want {
					t.Fatalf("tree %s\nnot  %s", got, c.Want)
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
