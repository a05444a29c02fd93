package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRewrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.json")
	lines := `# noise
{"Action":"output","Test":"TestA/M3_x","Output":"runc deviates as known: ignored"}
{"Action":"pass","Test":"TestA/M3_x"}
{"Action":"pass","Test":"TestB/M3_y"}
{"Action":"skip","Test":"TestB/M3_z"}
{"Action":"output","Test":"TestB/M4_z","Output":"skipped: runc deviates: hangs"}
{"Action":"skip","Test":"TestB/M4_z"}
{"Action":"fail","Test":"TestB/step_7-9_w"}
{"Action":"pass","Test":"TestB/CVE-2019-5736_w"}
{"Action":"pass","Test":"TestB"}
`
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	results, err := readResults(path)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other.json")
	if err := os.WriteFile(other, []byte(`{"Action":"fail","Test":"TestB/M3_y"}
{"Action":"pass","Test":"TestB/step_7-9_w"}
{"Action":"pass","Test":"TestC/C24_v"}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	if both, err := readResults(path, other); err != nil || both["M3"].passed != 0 || both["M3"].ran != 2 || both["step"].passed != 0 || both["C24"].passed != 1 {
		t.Errorf("of two runs: %+v, %v", both, err)
	}
	document := "text\n| row | what | tare | runc | crun | tests |\n| --- | --- | --- | --- | --- | --- |\n| M3 | a | 1 of 1 | | - | |\n| M4 | b | | | | |\n| step | c | | | | |\n"
	got, seen := rewrite(document, map[string]map[string]*result{"runc": results})
	for _, want := range []string{"| M3 | a | 1 of 1 | 1 of 2 | - | |", "| M4 | b | | 0 of 1 | | |", "| step | c | | 0 of 1 | | |", "text\n| row |"} {
		if !strings.Contains(got, want) {
			t.Errorf("there is no %q in\n%s", want, got)
		}
	}
	if len(results) != 3 || !seen["M3"] || !seen["step"] {
		t.Errorf("%v, %v", results, seen)
	}
	got, _ = rewrite(document, map[string]map[string]*result{"tare": results})
	if !strings.Contains(got, "| M3 | a | 1 of 2 | | - | TestA TestB |") {
		t.Errorf("the names of the tests are missing in\n%s", got)
	}
}
