package access

import (
	"strings"
	"testing"
	"time"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, yes, no string
	}{
		{"a/b", "a/b", "a a/b/c x/a/b a/bb"},
		{"**", "a a/b a/b/c", ""},
		{"team/**", "team team/a team/a/b", "teams teams/a a/team"},
		{"**/base", "base a/base a/b/base", "abase a/bases"},
		{"a/**/z", "a/z a/b/z a/b/c/z a/z/z", "a z a/b az"},
		{"*", "a abc", "a/b"},
		{"a/*", "a/b", "a a/b/c"},
		{"a-*", "a-b a-", "a b-a a-b/c"},
		{"*-x-*", "a-x-b -x--x- a-x-x-x-b", "a-x b-y-c"},
		{"a?c", "abc a-c", "ac abbc"},
		{"**/a/**/b/**", "a/b x/a/y/b/z a/a/b/b", "b/a a x/b"},
	} {
		for _, name := range strings.Fields(c.yes) {
			if !Match(c.pattern, name) {
				t.Errorf("%s does not match %s", c.pattern, name)
			}
		}
		for _, name := range strings.Fields(c.no) {
			if Match(c.pattern, name) {
				t.Errorf("%s matches %s", c.pattern, name)
			}
		}
	}
	begin := time.Now()
	Match(strings.Repeat("**/a/", 50)+"b", strings.Repeat("a/", 120)+"a")
	Match(strings.Repeat("*a", 100)+"b", strings.Repeat("a", 250))
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("a pattern took %s", took)
	}
}

func TestPolicyCheck(t *testing.T) {
	all, me := []string{"**"}, []string{"me"}
	pull := []Action{Pull}
	for _, c := range []struct {
		rule Rule
		want string
	}{
		{Rule{Repositories: all, Users: me, Actions: pull}, ""},
		{Rule{Users: me, Actions: pull}, "permission 1: no repositories"},
		{Rule{Repositories: all, Users: me}, "permission 1: no actions"},
		{Rule{Repositories: all, Actions: pull}, "permission 1: neither users nor groups nor anonymous"},
		{Rule{Repositories: all, Users: me, Actions: []Action{"read"}}, `unknown action "read"`},
		{Rule{Repositories: []string{"/a"}, Users: me, Actions: pull}, "empty component"},
		{Rule{Repositories: []string{"a**"}, Users: me, Actions: pull}, "whole component"},
		{Rule{Repositories: []string{"A"}, Users: me, Actions: pull}, "is in no repository's name"},
		{Rule{Repositories: []string{"[a-z]"}, Users: me, Actions: pull}, "is in no repository's name"},
	} {
		err := (&Policy{Rules: []Rule{c.rule}}).Check()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", c.rule, err, c.want)
		}
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("a/**/b*", "a/x/bc")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if checkPattern(pattern) != nil || name == "" {
			return
		}
		if !strings.ContainsAny(pattern, "*?") && Match(pattern, name) != (pattern == name) {
			t.Errorf("%q and %q", pattern, name)
		}
		if Match(pattern, name) && !Match("**/"+pattern+"/**", "x/"+name+"/y") {
			t.Errorf("%q matches %q, but not below", pattern, name)
		}
	})
}
