package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// maxAgain is how many failed tests run once more: with more than that something is broken.
const maxAgain = 3

// retry runs the few tests of black-box suites that failed once more, alone. These share two processors with the daemons that they
// start, and wait for things to happen in time. One that passes then counts as passed, and is named in a list of its own: it
// is a defect all the same, but says nothing about the change at hand.
func (s *summary) retry(run func(pkg, test string) bool) {
	if len(s.again) > maxAgain {
		return
	}
	for _, k := range s.again {
		name := short(k.pkg) + " " + k.test
		fmt.Fprintf(s.w, "once more, alone: %s\n", name)
		if !run(k.pkg, k.test) {
			continue
		}
		s.failed--
		s.passed++
		s.failures = slices.DeleteFunc(s.failures, func(f string) bool { return f == name })
		s.unsteady = append(s.unsteady, name)
	}
}

// runAlone runs one test, or subtest, with this process's environment.
func runAlone(pkg, test string) bool {
	parts := strings.Split(test, "/")
	for i, p := range parts {
		parts[i] = "^" + escape(p) + "$"
	}
	cmd := exec.Command("go", "test", "-count=1", "-timeout", "10m", "-run", strings.Join(parts, "/"), pkg)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run() == nil
}

// escape quotes what is special in a regular expression.
func escape(name string) string {
	var b strings.Builder
	for _, r := range name {
		if strings.ContainsRune(`\.+*?()|[]{}^$`, r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}
