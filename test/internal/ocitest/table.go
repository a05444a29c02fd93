package ocitest

import (
	"regexp"
	"strings"
	"testing"
)

// Case is one container that is run in the foreground, in a table.
type Case struct {
	Row   string   // requirement and a few words: the subtest's name
	Edit  []string // see Bundle.Edit
	Args  []string // the program; default true
	Sh    string   // the program as a shell script
	Flags []string // flags of run
	Cmd   Cmd      // how run is called; Args are filled in
	Setup func(h *H, b *Bundle)
	Out   string // wanted standard output without white space at its ends; "~" first: a regular expression; "" anything
	Code  int    // wanted exit status, unless Err is set
	Err   string // if set, run must fail, say this (case does not matter) and leave nothing behind; "*": say anything
	Warn  string // text wanted on standard error of a run that succeeds
	After func(h *H, b *Bundle, r Result)
}

// RunCases runs every case of a table as a subtest.
func RunCases(t *testing.T, cases []Case) {
	for _, c := range cases {
		Row(t, c.Row, func(h *H) { c.run(h) })
	}
}

func (c Case) run(h *H) {
	b := h.Bundle().Edit(c.Edit...)
	switch {
	case c.Args != nil:
		b.Args(c.Args...)
	case c.Sh != "":
		b.Sh(c.Sh)
	}
	if c.Setup != nil {
		c.Setup(h, b)
	}
	h.Write(b)
	cmd := c.Cmd
	cmd.Args = append(append([]string{"run", "--bundle", b.Dir}, c.Flags...), b.ID)
	r := h.Do(cmd)
	if c.Err != "" {
		h.wantErr(r, strings.TrimPrefix(c.Err, "*"), "run")
		h.NoLeak("the error")
		if s := h.RT("state", b.ID); s.Code == 0 {
			h.Errorf("a container is left after the error: %s", s.Stdout)
		}
	} else {
		h.Want(r, c.Out, c.Code)
		if !strings.Contains(strings.ToLower(r.Stderr), strings.ToLower(c.Warn)) {
			h.Errorf("standard error %q does not contain %q", r.Stderr, c.Warn)
		}
	}
	if c.After != nil {
		c.After(h, b, r)
	}
}

// Want compares a result: see Case.Out and Case.Code.
func (h *H) Want(r Result, out string, code int) {
	if r.Code != code {
		h.Errorf("status %d, want %d: stdout %q stderr %q", r.Code, code, trim(r.Stdout), trim(r.Stderr))
		return
	}
	if !Match(r.Stdout, out) {
		h.Errorf("output %q, want %q (stderr %q)", trim(r.Stdout), out, trim(r.Stderr))
	}
}

// Match compares text with a pattern as Case.Out describes it.
func Match(text, want string) bool {
	if re, ok := strings.CutPrefix(want, "~"); ok {
		return regexp.MustCompile(re).MatchString(strings.TrimSpace(text))
	}
	return want == "" || strings.TrimSpace(text) == want
}

func trim(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > 600 {
		s = s[:300] + " … " + s[len(s)-300:]
	}
	return s
}
