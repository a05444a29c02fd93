package registry

import (
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// conformance finds the conformance tool of the distribution specification, which scripts/peers.sh builds.
func conformance(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("conformance"); err == nil {
		return path
	}
	path, err := filepath.Abs("../../.cache/bin/conformance")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Skip("the conformance tool is not there: scripts/peers.sh conformance")
	}
	return path
}

// TestConformance runs the tool of the distribution specification: nothing fails, nothing is skipped. It counts as disabled
// what a version of the specification does not have.
func TestConformance(t *testing.T) {
	tool := conformance(t)
	for _, c := range []struct {
		version string
		env     []string
		atLeast int // tests
	}{
		{"1.0", nil, 500},
		{"1.1", nil, 800},
		{"stable", nil, 800},
		{"dev", []string{"OCI_DATA_SPARSE=true"}, 1000},
	} {
		t.Run(c.version, func(t *testing.T) {
			results := t.TempDir()
			cmd := exec.Command(tool)
			cmd.Env = append(os.Environ(), append(c.env, "OCI_REGISTRY="+startTared(t, "").addr, "OCI_TLS=disabled", "OCI_VERSION="+c.version,
				"OCI_REPO1=conformance/one", "OCI_REPO2=conformance/two", "OCI_RESULTS_DIR="+results)...)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("conformance: %v\n%s", err, failures(string(out)))
			}
			data, err := os.ReadFile(results + "/junit.xml")
			if err != nil {
				t.Fatal(err)
			}
			var got struct {
				Tests    int `xml:"tests,attr"`
				Failures int `xml:"failures,attr"`
				Errors   int `xml:"errors,attr"`
				Skipped  int `xml:"skipped,attr"`
			}
			if err := xml.Unmarshal(data, &got); err != nil {
				t.Fatal(err)
			}
			t.Logf("%+v", got)
			if got.Tests < c.atLeast || got.Failures+got.Errors+got.Skipped > 0 {
				t.Errorf("%+v, want at least %d tests and nothing else\n%s", got, c.atLeast, failures(string(out)))
			}
		})
	}
}

// failures are the lines of the tool's output that tell what went wrong.
func failures(out string) string {
	var found []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, "level=") || strings.Contains(line, "FAIL") || strings.HasSuffix(strings.TrimSpace(line), ": Skip") {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}
