package peers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReferrers attaches an artifact with one client and finds it with the others, on a registry with the referrers API and
// on one without.
func TestReferrers(t *testing.T) {
	need(t, "oras", "regctl")
	f := images(t)
	for _, r := range []string{"tared", "docker-registry"} {
		t.Run(r, func(t *testing.T) {
			address := registry(t, r)
			ref := address + "/attached:1"
			do(t, "tare", "copy", "oci:"+f.dir+":one", "docker://"+ref)
			file := filepath.Join(t.TempDir(), "note.txt")
			if err := os.WriteFile(file, []byte("a note"), 0o644); err != nil {
				t.Fatal(err)
			}
			do(t, "oras", "attach", "--plain-http", "--disable-path-validation", "--artifact-type", "application/x-note", ref, file+":text/plain")
			layout := filepath.Join(t.TempDir(), "layout")
			do(t, "tare", "copy", "--referrers", "docker://"+ref, "oci:"+layout+":1")
			ref2 := address + "/attached/again:1"
			do(t, "tare", "copy", "--referrers", "oci:"+layout+":1", "docker://"+ref2)
			for name, argv := range map[string][]string{
				"oras":   {"oras", "discover", "--plain-http", "--format", "json", ref2},
				"regctl": {"regctl", "--host", "reg=" + address + ",tls=disabled", "artifact", "list", ref2, "--format", "{{json .}}"},
			} {
				if out := do(t, argv...); !strings.Contains(out, "application/x-note") {
					t.Errorf("%s does not find the note:\n%s", name, out)
				}
			}
		})
	}
}
