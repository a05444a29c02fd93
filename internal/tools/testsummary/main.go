// Command testsummary reads the output of `go test -json` and writes what people want to know: a line per package, the
// output of what failed, why tests were skipped, and the counts on the last line, as in
//
//	212 passed, 0 failed, 3 skipped
//
// A test with subtests counts only by them. Up to three failed tests of the black-box suites run once more, alone; those that pass
// then are listed. The exit status is 1 if anything failed or nothing was run.
package main

import (
	"fmt"
	"os"
)

func main() {
	s := newSummary(os.Stdout)
	if err := s.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "read test output:", err)
		os.Exit(1)
	}
	s.retry(runAlone)
	if !s.finish() {
		os.Exit(1)
	}
}
