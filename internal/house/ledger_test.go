package house

import (
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// rows are the lists of requirements that docs/conformance/images.md has a line for each of: a prefix and how many there are.
var rows = map[string]int{"J": 4, "D": 11, "L": 10, "I": 9, "M": 7, "C": 9, "CV": 11, "AN": 5, "LY": 13, "WH": 8, "ND": 1,
	"RG": 17, "K": 20, "T": 10, "S": 7, "E": 4, "MT": 5, "": 24}

// otherRows are those without a number, or with one of their own.
const otherRows = "MT0 SEC end-1 end-2 end-3 end-4a end-4b end-4c end-5 end-6 end-7a end-7b end-8a end-8b end-9 end-10 end-11 end-12a end-12b " +
	"end-13 end-14 end-ext config.json keys precedence legacy auth.json helpers login k8s"

var testName = regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z0-9]\w*`)

// testsByDir are the test functions of each directory.
func testsByDir(t *testing.T) map[string]map[string]bool {
	t.Helper()
	found := map[string]map[string]bool{}
	for _, s := range sources(t) {
		if !s.test {
			continue
		}
		if found[s.dir] == nil {
			found[s.dir] = map[string]bool{}
		}
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && testName.MatchString(f.Name.Name) {
				found[s.dir][f.Name.Name] = true
			}
		}
	}
	return found
}

// lines of a document, whose table cells are split; the first cell of others is empty.
func tableLines(t *testing.T, name string) [][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(), name))
	if err != nil {
		t.Fatal(err)
	}
	var all [][]string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| --- |") {
			all = append(all, []string{"", line})
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		all = append(all, cells)
	}
	return all
}

// TestConformanceLedger holds docs/conformance/images.md to what there is: every requirement has a line, and every test that
// it names exists in the package that it names.
func TestConformanceLedger(t *testing.T) {
	const name = "docs/conformance/images.md"
	tests := testsByDir(t)
	word := regexp.MustCompile("`([a-z0-9/]+)`|" + testName.String())
	seen := map[string]bool{}
	for _, cells := range tableLines(t, name) {
		id := cells[0]
		if id == "" || id == "row" {
			continue
		}
		if seen[id] {
			t.Errorf("%s: row %s is there twice", name, id)
		}
		seen[id] = true
		if len(cells) != 4 {
			t.Errorf("%s: row %s has %d cells, want row, what, state, tests", name, id, len(cells))
			continue
		}
		dir, n := "", 0
		for _, m := range word.FindAllStringSubmatch(cells[3], -1) {
			if m[1] != "" {
				dir = m[1]
				continue
			}
			n++
			if !tests[dir][m[0]] {
				t.Errorf("%s: row %s: %s is no test of package %s", name, id, m[0], dir)
			}
		}
		switch cells[2] {
		case "done", "refused":
			if n == 0 {
				t.Errorf("%s: row %s is %s without a test", name, id, cells[2])
			}
		case "n.a.", "missing":
			if n > 0 || cells[3] == "" {
				t.Errorf("%s: row %s is %s: want the reason, and no test", name, id, cells[2])
			}
		default:
			t.Errorf("%s: row %s has state %q, want done, refused, n.a. or missing", name, id, cells[2])
		}
	}
	want := strings.Fields(otherRows)
	for prefix, n := range rows {
		for i := range n {
			want = append(want, fmt.Sprint(prefix, i+1))
		}
	}
	for _, id := range want {
		if !seen[id] {
			t.Errorf("%s has no row %s: a requirement must not get lost", name, id)
		}
		delete(seen, id)
	}
	for id := range seen {
		t.Errorf("%s: row %s is not a requirement", name, id)
	}
}

// TestAdvisoryLedger holds docs/security/advisories.md to what there is: a test that it names is in one of the packages that
// its section names, by path, as "package NAME" or as "NAME: Test…".
func TestAdvisoryLedger(t *testing.T) {
	const name = "docs/security/advisories.md"
	tests := testsByDir(t)
	place := regexp.MustCompile("[a-z0-9]+(?:/[a-z0-9]+)+|package `?([a-z0-9/]+)|\\b([a-z0-9]+): Test")
	section := []string{"test/runtime"}
	packages := map[string]bool{}
	type use struct{ section, row, test string }
	var uses []use
	add := func(words string) {
		for _, m := range place.FindAllStringSubmatch(words, -1) {
			for _, w := range m {
				for dir := range tests {
					if w != "" && (dir == w || strings.HasSuffix(dir, "/"+w)) {
						packages[section[0]+"\x00"+dir] = true
					}
				}
			}
		}
	}
	add("test/runtime")
	for _, cells := range tableLines(t, name) {
		line := cells[len(cells)-1]
		if cells[0] == "" && strings.HasPrefix(line, "## ") {
			section[0] = line
		}
		add(line)
		for _, test := range testName.FindAllString(line, -1) {
			uses = append(uses, use{section[0], cells[0], test})
		}
	}
	if len(uses) < 100 {
		t.Fatalf("%s names %d tests: its form has changed", name, len(uses))
	}
	for _, u := range uses {
		found := false
		for dir := range tests {
			found = found || packages[u.section+"\x00"+dir] && tests[dir][u.test]
		}
		if !found {
			t.Errorf("%s, %s: %s: %s is no test of the packages that the section names", name, u.section, u.row, u.test)
		}
	}
}

// TestMutantLedger holds the mutants of test/mutants and docs/security/advisories.md together: a row of a table with a
// column of mutants names one that exists, or says why there is none; every mutant is named there, and names tests that
// exist.
func TestMutantLedger(t *testing.T) {
	const name = "docs/security/advisories.md"
	tests := testsByDir(t)
	files, err := filepath.Glob(filepath.Join(root(), "test/mutants/*.patch"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no patches in test/mutants: %v", err)
	}
	named := map[string]bool{}
	for _, f := range files {
		named[strings.TrimSuffix(filepath.Base(f), ".patch")] = false
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			test, ok := strings.CutPrefix(line, "test: ./")
			dir, run, _ := strings.Cut(test, " -run ")
			fn, _, _ := strings.Cut(strings.TrimSpace(run), "/")
			if ok && !tests[dir][fn] {
				t.Errorf("%s: %s is not a test of %s", filepath.Base(f), fn, dir)
			}
		}
	}
	word := regexp.MustCompile("`([a-z0-9-]+)`")
	rows, mutants := 0, -1 // the column
	for _, cells := range tableLines(t, name) {
		if cells[0] == "" {
			if !strings.HasPrefix(cells[1], "| --- |") {
				mutants = -1
			}
			continue
		}
		if cells[0] == "advisory" || cells[0] == "hole" {
			if mutants = len(cells) - 1; cells[mutants] != "mutant" {
				mutants = -1
			}
			continue
		}
		if mutants < 0 {
			continue
		}
		rows++
		if len(cells) != mutants+1 {
			t.Errorf("%s: %s: %d cells, want %d", name, cells[0], len(cells), mutants+1)
			continue
		}
		found := word.FindAllStringSubmatch(cells[mutants], -1)
		if len(found) == 0 && !strings.HasPrefix(cells[mutants], "none: ") {
			t.Errorf("%s: %s: no mutant shows that its tests can fail: name one in backquotes, or say why after \"none: \"", name, cells[0])
		}
		for _, m := range found {
			if _, ok := named[m[1]]; !ok {
				t.Errorf("%s: %s: there is no test/mutants/%s.patch", name, cells[0], m[1])
			}
			named[m[1]] = true
		}
	}
	if rows < 30 {
		t.Errorf("%s has %d rows with mutants: its form has changed", name, rows)
	}
	for m, ok := range named {
		if !ok {
			t.Errorf("%s does not name the mutant %s", name, m)
		}
	}
}
