// Command runtimerows writes the results of test/runtime into docs/conformance/runtime.md, a column for each runtime:
//
//	go test -count=1 -json ./test/runtime >host.json
//	TARE_VM=1 TARE_VM_RESULTS=/tmp/vm go test -run 'TestAll/release$/v2$/test/runtime' ./test/vm
//	go run ./internal/tools/runtimerows docs/conformance/runtime.md tare=host.json,/tmp/vm/release-v2-test-runtime.json
//
// The lines of the file, and what they say a row requires, are written by people; the columns of the runtimes and the names of
// the tests are written by this command. A cell "3 of 4" says how many cases named after the row passed of those that ran.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// columns are the runtimes of the table, in order.
var columns = []string{"tare", "runc", "crun"}

// event is a line of `go test -json`.
type event struct{ Action, Test, Output string }

// result is what came out of the cases of one row with one runtime.
type result struct {
	passed, ran int
	tests       []string // test functions, without repetition
}

// rowName is the number of a requirement, or the word for a group of them, with which the name of a case begins.
// B1 to B4 are sections of the advisories.
var rowName = regexp.MustCompile(`^(?:[AC-Z][A-Z]{0,2}\d*|CLI|gVisor|step|[a-z]+)$`)

// rowOf returns the row that a case is named after, or "".
func rowOf(name string) string {
	_, sub, ok := strings.Cut(name, "/")
	if !ok || strings.Contains(sub, "/") {
		return ""
	}
	word, _, _ := strings.Cut(sub, "_")
	word = strings.TrimRight(word, ",:")
	if !rowName.MatchString(word) {
		return ""
	}
	return word
}

// readResults collects the results of runs of one runtime by row. A case that is known to deviate passes in the run,
// and counts as failed here; one of several runs, on other machines, counts once: as passed if it passed wherever it
// ran.
func readResults(paths ...string) (map[string]*result, error) {
	passed := map[string]bool{}
	for _, path := range paths {
		if err := readRun(path, passed); err != nil {
			return nil, err
		}
	}
	results := map[string]*result{}
	for test, ok := range passed {
		row := rowOf(test)
		r := results[row]
		if r == nil {
			r = &result{}
			results[row] = r
		}
		r.ran++
		if ok {
			r.passed++
		}
		if function, _, _ := strings.Cut(test, "/"); !slices.Contains(r.tests, function) {
			r.tests = append(r.tests, function)
		}
	}
	return results, nil
}

// readRun adds the cases of one run that ran, and whether they passed.
func readRun(path string, passed map[string]bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	deviates := map[string]bool{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<22)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue // output of the go command itself
		}
		if rowOf(e.Test) == "" {
			continue
		}
		if e.Action == "output" && (strings.Contains(e.Output, " deviates as known: ") || strings.Contains(e.Output, " deviates: ")) {
			deviates[e.Test] = true
		}
		if e.Action != "pass" && e.Action != "fail" && !(e.Action == "skip" && deviates[e.Test]) {
			continue
		}
		before, ran := passed[e.Test]
		passed[e.Test] = e.Action == "pass" && !deviates[e.Test] && (before || !ran)
	}
	return lines.Err()
}

// rewrite returns the document with the cells of the runtimes that are in runs replaced, and the rows that have a line.
func rewrite(document string, runs map[string]map[string]*result) (string, map[string]bool) {
	var out strings.Builder
	seen := map[string]bool{}
	for line := range strings.Lines(document) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != len(columns)+5 || strings.Contains(cells[1], "---") || strings.TrimSpace(cells[1]) == "row" {
			out.WriteString(line)
			continue
		}
		row := strings.TrimSpace(cells[1])
		seen[row] = true
		for i, c := range columns {
			if run := runs[c]; run != nil {
				cells[3+i] = " " + cell(run[row]) + " "
			}
		}
		if run := runs[columns[0]]; run != nil && run[row] != nil {
			slices.Sort(run[row].tests)
			cells[3+len(columns)] = " " + strings.Join(run[row].tests, " ") + " "
		}
		out.WriteString(strings.Join(cells, "|") + "\n")
	}
	return out.String(), seen
}

func cell(r *result) string {
	if r == nil || r.ran == 0 {
		return "-"
	}
	return fmt.Sprintf("%d of %d", r.passed, r.ran)
}

func main() {
	if err := update(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "runtimerows:", err)
		os.Exit(1)
	}
}

func update(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: runtimerows DOCUMENT RUNTIME=FILE")
	}
	document, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	runs := map[string]map[string]*result{}
	for _, arg := range args[1:] {
		name, paths, ok := strings.Cut(arg, "=")
		if !ok || !slices.Contains(columns, name) {
			return fmt.Errorf("%q is not tare=FILE,…, runc=FILE,… or crun=FILE,…", arg)
		}
		if runs[name], err = readResults(strings.Split(paths, ",")...); err != nil {
			return fmt.Errorf("read results of %s: %w", name, err)
		}
	}
	text, seen := rewrite(string(document), runs)
	for row := range runs[columns[0]] {
		if !seen[row] && row[0] <= 'Z' { // words in small letters need no line
			return fmt.Errorf("%s has no line for row %s", args[0], row)
		}
	}
	return os.WriteFile(args[0], []byte(text), 0o644)
}
