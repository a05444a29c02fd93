package house

import (
	"go/ast"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// runtimeRow is a requirement's number at the beginning of a case's name in test/runtime.
var runtimeRow = regexp.MustCompile(`^(?:A|C|D|F|G|H|HK|IR|L|M|MA|MO|MP|N|ND|P|PE|RO|RP|S|SY|T|U|V|X|CLI)\d*$`)

// TestRuntimeLedger holds docs/conformance/runtime.md to test/runtime: a row is there once, a test that it names exists, a row
// with results names its tests, and a case is named after a row that is there.
func TestRuntimeLedger(t *testing.T) {
	const name = "docs/conformance/runtime.md"
	tests := testsByDir(t)["test/runtime"]
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
		if len(cells) != 6 {
			t.Errorf("%s: row %s has %d cells, want row, what, tare, runc, crun, tests", name, id, len(cells))
			continue
		}
		for _, test := range testName.FindAllString(cells[5], -1) {
			if !tests[test] {
				t.Errorf("%s: row %s: there is no test %s in test/runtime", name, id, test)
			}
		}
		if cells[2] != "-" && !testName.MatchString(cells[5]) {
			t.Errorf("%s: row %s has results and names no test", name, id)
		}
	}
	for _, s := range sources(t) {
		if s.dir != "test/runtime" || !s.test {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			for _, text := range caseNames(n) {
				word, _, _ := strings.Cut(text, " ")
				if runtimeRow.MatchString(word) && !seen[word] {
					t.Errorf("%s has no line for row %s, which the case %q is named after", name, word, text)
				}
			}
			return true
		})
	}
}

// caseNames returns the names of cases that a node gives: row(t, "…", …) and Row: "…".
func caseNames(n ast.Node) []string {
	var literal ast.Expr
	switch n := n.(type) {
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.Ident); ok && f.Name == "row" && len(n.Args) > 1 {
			literal = n.Args[1]
		}
	case *ast.KeyValueExpr:
		if k, ok := n.Key.(*ast.Ident); ok && k.Name == "Row" {
			literal = n.Value
		}
	}
	if b, ok := literal.(*ast.BinaryExpr); ok {
		literal = b.X
	}
	l, ok := literal.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return nil
	}
	text, err := strconv.Unquote(l.Value)
	if err != nil {
		return nil
	}
	return []string{text}
}
