package escape

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

// red is what a peer is known to lose in a test.
func red(does string) ocitest.Deviation { return ocitest.Deviation{Does: does} }

// expected are the tests that are red with a runtime of one version: they must fail there, and no other may. tare has none.
var expected = map[string]map[string]ocitest.Deviation{
	"runc 1.1.5": {},
	"crun 1.8.1": {},
}

// races take minutes with a runtime that starts a container in 50 ms.
var races = regexp.MustCompile(`^Test\w*Races?$`)

// TestPeers runs the tests that are red with the peers that are installed: the suite finds in them what it would find in tare.
func TestPeers(t *testing.T) {
	if !ocitest.Tare() {
		t.Skip("the runtime under test is a peer itself")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for peer, list := range expected {
		name, version, _ := strings.Cut(peer, " ")
		t.Run(name, func(t *testing.T) {
			out, err := exec.Command(name, "--version").Output()
			if err != nil {
				t.Skipf("%s is not installed: %v", name, err)
			}
			if first, _, _ := strings.Cut(string(out), "\n"); !strings.Contains(first+"+", " "+version+"+") {
				t.Skipf("%s is not version %s: %s", name, version, first)
			}
			var tops, subs []string
			for test := range list {
				top, sub, _ := strings.Cut(test, "/")
				if races.MatchString(top) {
					continue
				}
				if !slices.Contains(tops, top) {
					tops = append(tops, top)
				}
				subs = append(subs, regexp.QuoteMeta(sub))
			}
			c := exec.Command(self, "-test.v", "-test.run", "^("+strings.Join(tops, "|")+")$/^("+strings.Join(subs, "|")+")$")
			c.Env = append(os.Environ(), "RUNTIME="+name)
			text, err := c.CombinedOutput()
			if err != nil {
				t.Errorf("not as expected: %v\n%s", err, text)
			}
			if n := strings.Count(string(text), " deviates as known: "); n < len(subs) || n < 5 {
				t.Errorf("%d tests are red, %d are listed, at least 5 are wanted:\n%s", n, len(subs), text)
			}
		})
	}
}
