package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// maxOutput limits the lines that are shown of a test that did not end.
const maxOutput = 300

// event is one line of `go test -json`; see `go doc test2json`.
type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

// key names a test, or a package if the test is empty.
type key struct{ pkg, test string }

type summary struct {
	w        io.Writer
	output   map[key][]string // of tests that still run
	parents  map[key]bool     // tests with subtests
	failedIn map[key]bool     // tests with a failed subtest, packages with a failed test
	running  map[key]bool     // tests and packages that did not end yet
	skips    map[string][]string
	failures []string
	again    []key // failed tests of black-box suites, which run once more
	unsteady []string
	builds   map[string][]string // output of the compiler, by import path

	passed, failed, skipped, packages int
}

func newSummary(w io.Writer) *summary {
	return &summary{w: w, output: map[key][]string{}, parents: map[key]bool{}, failedIn: map[key]bool{}, running: map[key]bool{},
		skips: map[string][]string{}, builds: map[string][]string{}}
}

// read takes the events in; lines that are not events are passed on, since they tell what went wrong before a test ran.
func (s *summary) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil || e.Action == "" {
			fmt.Fprintln(s.w, lines.Text())
			continue
		}
		s.take(e)
	}
	return lines.Err()
}

func (s *summary) take(e event) {
	k := key{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		s.builds[e.ImportPath] = append(s.builds[e.ImportPath], e.Output)
	case "build-fail":
		fmt.Fprint(s.w, strings.Join(s.builds[e.ImportPath], ""))
	case "start":
		s.running[k] = true
	case "run":
		s.running[k] = true
		for i := strings.LastIndexByte(e.Test, '/'); i >= 0; i = strings.LastIndexByte(e.Test[:i], '/') {
			s.parents[key{e.Package, e.Test[:i]}] = true
		}
	case "output":
		if !strings.HasPrefix(e.Output, "=== ") { // RUN, PAUSE, CONT, NAME: which test it is follows from the end
			s.output[k] = append(s.output[k], e.Output)
		}
	case "pass", "fail", "skip":
		delete(s.running, k)
		if e.Test == "" {
			s.packageEnd(e)
		} else {
			s.testEnd(k, e)
		}
		delete(s.output, k)
	}
}

func (s *summary) testEnd(k key, e event) {
	switch {
	case e.Action == "fail":
		s.failedIn[key{k.pkg, ""}] = true
		for i := strings.LastIndexByte(k.test, '/'); i >= 0; i = strings.LastIndexByte(k.test[:i], '/') {
			s.failedIn[key{k.pkg, k.test[:i]}] = true
		}
		fmt.Fprint(s.w, strings.Join(s.output[k], ""))
		if !s.failedIn[k] {
			s.failed++
			s.failures = append(s.failures, short(k.pkg)+" "+k.test)
			if strings.HasPrefix(short(k.pkg), "test/") {
				s.again = append(s.again, k)
			}
		}
	case s.parents[k]:
	case e.Action == "skip":
		s.skipped++
		reason := skipReason(s.output[k])
		s.skips[reason] = append(s.skips[reason], short(k.pkg)+" "+k.test)
	default:
		s.passed++
	}
}

func (s *summary) packageEnd(e event) {
	s.packages++
	s.unended(e.Package)
	out := s.output[key{e.Package, ""}]
	switch {
	case e.Action == "fail":
		fmt.Fprintf(s.w, "FAIL  %s  %.1f s\n", short(e.Package), e.Elapsed)
		if !s.failedIn[key{e.Package, ""}] {
			fmt.Fprint(s.w, strings.Join(out, ""))
			s.failed++
			s.failures = append(s.failures, short(e.Package)+" (the package)")
		}
	case e.Action == "skip": // no test files
	default:
		fmt.Fprintf(s.w, "ok    %s  %.1f s\n", short(e.Package), e.Elapsed)
		// A suite that decides in its TestMain not to run at all says so on standard output.
		for _, line := range out {
			if strings.Contains(line, " skipped: ") {
				reason := strings.TrimSpace(line[strings.Index(line, " skipped: ")+len(" skipped: "):])
				s.skipped++
				s.skips[reason] = append(s.skips[reason], short(e.Package)+" (the package)")
			}
		}
	}
}

// unended fails the tests that were running when their package ended, which a crash or the time limit does, and writes
// their output, where the stacks are.
func (s *summary) unended(pkg string) {
	for k := range s.running {
		if k.pkg != pkg || k.test == "" {
			continue
		}
		delete(s.running, k)
		out := s.output[k]
		fmt.Fprint(s.w, strings.Join(out[:min(len(out), maxOutput)], ""))
		if s.parents[k] {
			continue
		}
		s.failedIn[key{pkg, ""}] = true
		s.failed++
		s.failures = append(s.failures, short(pkg)+" "+k.test+" (did not end)")
	}
}

// skipReason finds the text of t.Skip in the output of a test.
func skipReason(output []string) string {
	reason := "no reason given"
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "---") {
			continue
		}
		if _, text, ok := strings.Cut(line, ".go:"); ok {
			if _, text, ok = strings.Cut(text, ": "); ok {
				line = text
			}
		}
		reason = line
	}
	return reason
}

// finish writes what was skipped and what failed, then the counts, and reports whether all is well.
func (s *summary) finish() bool {
	for k := range s.running {
		if k.test == "" {
			s.unended(k.pkg)
			s.failed++
			s.failures = append(s.failures, short(k.pkg)+" (did not end)")
		}
	}
	if len(s.skips) > 0 {
		fmt.Fprintln(s.w, "\nskipped:")
		var reasons []string
		for r := range s.skips {
			reasons = append(reasons, r)
		}
		slices.Sort(reasons)
		for _, r := range reasons {
			tests := s.skips[r]
			fmt.Fprintf(s.w, "  %d: %s (%s", len(tests), r, tests[0])
			if len(tests) > 1 {
				fmt.Fprint(s.w, ", …")
			}
			fmt.Fprintln(s.w, ")")
		}
	}
	if len(s.unsteady) > 0 {
		fmt.Fprintln(s.w, "\nfailed at first and passed when run once more, alone: a race in the test or in what it tests, to be found:")
		for _, f := range s.unsteady {
			fmt.Fprintln(s.w, "  "+f)
		}
	}
	if len(s.failures) > 0 {
		fmt.Fprintln(s.w, "\nfailed:")
		slices.Sort(s.failures)
		for _, f := range s.failures {
			fmt.Fprintln(s.w, "  "+f)
		}
	}
	fmt.Fprintf(s.w, "\n%d passed, %d failed, %d skipped\n", s.passed, s.failed, s.skipped)
	return s.failed == 0 && s.packages > 0
}

// short leaves out the module's path.
func short(pkg string) string {
	return strings.TrimPrefix(pkg, "github.com/tare-oci/tare/")
}
