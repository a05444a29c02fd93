package hosts

import (
	"testing"

	"github.com/tare-oci/tare/image/reference"
)

// FuzzFiles: no file makes an endpoint that is not a proper origin, or plain http where nobody asked for it.
func FuzzFiles(f *testing.F) {
	f.Add([]byte("[registry.\"q.io\"]\nmirrors = [\"m.io/p\", {url = \"http://m2.io\", pull = \"digest\"}]\nheader = {a = \"b\"}"), "q.io/a")
	f.Add([]byte("server = \"https://x.io\"\n[host.\"https://m.io/v2/p\"]\ncapabilities = [\"pull\"]\noverride_path = true\nclient = [[\"a\", \"b\"]]"), "q.io/a/b")
	f.Add([]byte("[[registry]]\nprefix = \"*.q.io\"\nlocation = \"in.io/x\"\n[[registry.mirror]]\nlocation = \"m.io\"\ninsecure = true"), "a.q.io/a")
	f.Fuzz(func(t *testing.T, data []byte, image string) {
		n, err := reference.ParseName(image)
		if err != nil {
			return
		}
		c := &Config{own: map[string]section{}}
		if c.own, err = parseOwn(data); err != nil {
			c.own = map[string]section{}
		}
		c.containers, _, _ = parseContainers(data) // an error leaves nothing
		check := func(r rule) {
			for _, p := range r.places {
				e, err := c.endpoint(n, p)
				if err == nil && (e.Base().Host != e.Origin.Host() || e.Repository == "" || e.Base().User != nil) {
					t.Errorf("%q for %s: %s", data, image, e)
				}
			}
		}
		if r, ok, err := c.ownRule(n); ok && err == nil {
			check(r)
		}
		if r, ok, err := c.containersRule(n); ok && err == nil {
			check(r)
		}
		if r, err := c.parseHosts(n, "/x/hosts.toml", data); err == nil {
			check(r)
		}
	})
}
