package main

import (
	"strings"
	"testing"
)

const events = `
{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestA/one"}
{"Action":"output","Package":"p","Test":"TestA/one","Output":"    a_test.go:7: want 1, got 2\n"}
{"Action":"fail","Package":"p","Test":"TestA/one"}
{"Action":"run","Package":"p","Test":"TestA/two"}
{"Action":"pass","Package":"p","Test":"TestA/two"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Test":"TestB","Output":"=== RUN   TestB\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:7: needs podman\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"fail","Package":"p","Elapsed":1.26}
not an event
{"Action":"start","Package":"q"}
{"Action":"output","Package":"q","Output":"black-box suite skipped: needs root\n"}
{"Action":"pass","Package":"q","Elapsed":0}
{"ImportPath":"r","Action":"build-output","Output":"r.go:1:1: syntax error\n"}
{"ImportPath":"r","Action":"build-fail"}
{"Action":"start","Package":"r"}
{"Action":"fail","Package":"r","Elapsed":0}
{"Action":"start","Package":"s"}
{"Action":"run","Package":"s","Test":"TestHung"}
{"Action":"output","Package":"s","Test":"TestHung","Output":"panic: test timed out\n"}
{"Action":"fail","Package":"s","Elapsed":600}
{"Action":"start","Package":"t"}
`

const report = `    a_test.go:7: want 1, got 2
FAIL  p  1.3 s
not an event
ok    q  0.0 s
r.go:1:1: syntax error
FAIL  r  0.0 s
panic: test timed out
FAIL  s  600.0 s

skipped:
  1: needs podman (p TestB)
  1: needs root (q (the package))

failed:
  p TestA/one
  r (the package)
  s TestHung (did not end)
  t (did not end)

1 passed, 4 failed, 2 skipped
`

func TestSummary(t *testing.T) {
	var out strings.Builder
	s := newSummary(&out)
	if err := s.read(strings.NewReader(strings.TrimPrefix(events, "\n"))); err != nil {
		t.Fatal(err)
	}
	if s.finish() {
		t.Error("failures are not reported")
	}
	if out.String() != report {
		t.Errorf("got\n%s\nwant\n%s", out.String(), report)
	}
}

func TestSummaryOfNothing(t *testing.T) {
	var out strings.Builder
	if newSummary(&out).finish() {
		t.Error("no test at all is not a success")
	}
}

func TestSummaryOfSuccess(t *testing.T) {
	var out strings.Builder
	s := newSummary(&out)
	text := `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Elapsed":0.1}`
	if err := s.read(strings.NewReader(text)); err != nil || !s.finish() {
		t.Errorf("not a success: %v", err)
	}
	if want := "ok    p  0.1 s\n\n1 passed, 0 failed, 0 skipped\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
