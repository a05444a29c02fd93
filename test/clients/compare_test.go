package clients

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

// row is a script that a user could type. It runs with both runtimes at once; what it prints, says and returns must be equal.
type row struct {
	name   string
	script string
	want   string // standard output with our runtime; "~" first: a regular expression
	err    string // regular expression that standard error matches; empty: it is empty
	v1     bool   // the script reads files of cgroup v1
	better string // if set, why runc's answer is another one; only ours is looked at
}

// compare runs every row as a subtest. After each, clean is run on both sides, and then nothing of the row may be left.
func compare(t *testing.T, w [2]*side, clean string, rows []row) {
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if _, err := os.Stat("/sys/fs/cgroup/memory"); r.v1 && err != nil {
				t.Skip("there is no cgroup v1")
			}
			ocitest.Reap()
			before := ocitest.TakeSnapshot()
			defer func() {
				both(w, func(s *side) result { return s.sh(clean) })
				noLeak(t, before)
			}()
			tare, runc := both(w, func(s *side) result { return s.sh(r.script) })
			r.check(t, tare, runc)
			if e, _ := raw.Load("tare"); t.Failed() && e != "" {
				o, _ := raw.Load("runc")
				t.Logf("what tare-runtime really said:\n%s\nand runc:\n%s", e, o)
			}
		})
	}
}

func (r row) check(t *testing.T, tare, runc result) {
	t.Helper()
	if r.better == "" && tare != runc {
		t.Errorf("differs from runc:\n%s", diff(runc, tare))
	}
	if strings.Contains(tare.out, "waited in vain") {
		t.Errorf("%s", tare.out)
	}
	want := r.want
	if want == "" {
		want = "~^$"
	}
	if !ocitest.Match(tare.out, want) {
		t.Errorf("standard output is\n%s\nwant\n%s\nstandard error is\n%s", tare.out, want, tare.err)
	}
	if r.err == "" && tare.err != "" || r.err != "" && !regexp.MustCompile(r.err).MatchString(tare.err) {
		t.Errorf("standard error is\n%s\nwant\n%s", tare.err, r.err)
	}
}

// noLeak waits until the world is as before: clients remove things after they answered.
func noLeak(t *testing.T, before ocitest.Snapshot) {
	t.Helper()
	var left string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		ocitest.Reap()
		if left = leftovers(before); left == "" {
			return
		}
	}
	t.Errorf("left behind:\n%s", left)
}

// expected is what stays after a row, and why: the cgroups that all containers of a side are in, that of Podman's monitors, and that
// of a pod in the hierarchies that Podman does not know; what runc leaves; a process of the row before that was still dying when this one began.
var expected = regexp.MustCompile(`new: cgroup \S*/(oci\d+(tare|runc)(/conmon|/[0-9a-f]{64})?|oci\d+runc/\S*)$|gone: process`)

func leftovers(before ocitest.Snapshot) string {
	var out []string
	for _, l := range lines(before.Diff(ocitest.TakeSnapshot())) {
		if l != "" && !expected.MatchString(l) {
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}

func diff(runc, tare result) string {
	var b strings.Builder
	if runc.code != tare.code {
		fmt.Fprintf(&b, "status %d with runc, %d with tare-runtime\n", runc.code, tare.code)
	}
	for _, s := range []struct{ name, runc, tare string }{{"standard output", runc.out, tare.out}, {"standard error", runc.err, tare.err}} {
		if s.runc != s.tare {
			fmt.Fprintf(&b, "--- %s with runc\n%s\n--- %s with tare-runtime\n%s\n", s.name, s.runc, s.name, s.tare)
		}
	}
	return b.String()
}

var (
	longID  = regexp.MustCompile(`\b[0-9a-f]{64}\b`)
	shortID = regexp.MustCompile(`\b[0-9a-f]{12}\b`)
	// The runtime's own sentence: runc's words are not ours. What the client makes of it comes before or after it and stays.
	sentence = regexp.MustCompile(`(?m)(RUNTIME: |runc did not terminate successfully: |OCI runtime create failed: |OCI runtime exec failed: |` +
		`failed to create shim task: |failed to create shim: |OCI runtime start failed: )(.*?)(: OCI [^:]*$|: (?:unknown|not found|permission denied)\.?$|$)`)
)

// logged is the sentence in the runtime's log format, as Buildah shows it.
var logged = regexp.MustCompile(`(?m)(creating container for .*: )time="[^"]*" level=error msg=".*"$`)

// waiting is what the docker command says now and then when the daemon is faster than itself.
var waiting = regexp.MustCompile(`(?m)^time="[^"]*" level=error msg="error waiting for container: .*"\n?`)

// normal replaces what differs between any two runs.
func (s *side) normal(text string) string {
	text = strings.ReplaceAll(text, s.runtime, "RUNTIME")
	text = strings.ReplaceAll(text, s.dir, "DIR")
	text = strings.ReplaceAll(text, s.mark, "MARK")
	text = longID.ReplaceAllString(text, "ID")
	text = shortID.ReplaceAllString(text, "ID")
	text = strings.ReplaceAll(text, "\r\n", "\n")
	text = regexp.MustCompile(`(?m)(^|\W)(runc|tare-runtime): `).ReplaceAllString(text, "${1}RUNTIME: ")
	text = waiting.ReplaceAllString(text, "")
	text = sentence.ReplaceAllString(text, "${1}SENTENCE${3}")
	text = logged.ReplaceAllString(text, "${1}SENTENCE")
	return strings.TrimSpace(text)
}
