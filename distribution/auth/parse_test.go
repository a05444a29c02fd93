package auth

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParseChallenges(t *testing.T) { // T1
	bearer := func(kv ...string) Challenge {
		c := Challenge{Scheme: "bearer", Params: map[string]string{}}
		for i := 0; i < len(kv); i += 2 {
			c.Params[kv[i]] = kv[i+1]
		}
		return c
	}
	basic := Challenge{Scheme: "basic", Params: map[string]string{"realm": "x"}}
	for _, c := range []struct {
		in   []string
		want []Challenge
		err  string
	}{
		{nil, nil, ""},
		{[]string{""}, nil, ""},
		{[]string{`Bearer realm="https://auth/token",service="registry",scope="repository:a/b:pull,push"`},
			[]Challenge{bearer("realm", "https://auth/token", "service", "registry", "scope", "repository:a/b:pull,push")}, ""},
		{[]string{`bEARER  Realm = "r" , SERVICE=s`}, []Challenge{bearer("realm", "r", "service", "s")}, ""},
		{[]string{`Basic realm="x", Bearer realm="a\"b\\c, Basic realm=d"`}, []Challenge{basic, bearer("realm", `a"b\c, Basic realm=d`)}, ""},
		{[]string{`Basic realm="x"`, `Bearer realm="r"`}, []Challenge{basic, bearer("realm", "r")}, ""},
		{[]string{`Negotiate, Basic realm="x"`}, []Challenge{{Scheme: "negotiate", Params: map[string]string{}}, basic}, ""},
		{[]string{`Negotiate abc/+==, Basic realm="x"`}, []Challenge{{Scheme: "negotiate", Params: map[string]string{}, Token: "abc/+=="}, basic}, ""},
		{[]string{`, ,Basic realm="x",,Bearer`}, []Challenge{basic, bearer()}, ""},
		{[]string{`Bearer realm=https://a/t?x=y,service=gcr.io`}, []Challenge{bearer("realm", "https://a/t?x=y", "service", "gcr.io")}, ""},
		{[]string{`Bearer realm=a"b"`}, nil, "want a comma"},
		{[]string{`Bearer realm=é`}, nil, "want a value"},
		{[]string{`Bearer realm=""`}, []Challenge{bearer("realm", "")}, ""},
		{[]string{`Bearer realm="a", realm="b"`}, nil, "twice"},
		{[]string{`Bearer realm="a`}, nil, "does not end"},
		{[]string{`Bearer realm="a\`}, nil, "does not end"},
		{[]string{`Bearer realm="a" service="b"`}, nil, "want a comma"},
		{[]string{`Bearer realm=`}, []Challenge{{Scheme: "bearer", Params: map[string]string{}, Token: "realm="}}, ""},
		{[]string{`Bearer realm=,a=b`}, []Challenge{{Scheme: "bearer", Params: map[string]string{}, Token: "realm="}, {Scheme: "a", Params: map[string]string{}}}, "want a space"},
		{[]string{`"x"`}, nil, "want a scheme"},
		{[]string{"Bearer realm=\"a\x00b\""}, nil, "control character"},
		{[]string{strings.Repeat("x", maxChallengeBytes+1)}, nil, "more than"},
		{[]string{strings.Repeat("Basic, ", 20)}, nil, "more than 16 challenges"},
		{[]string{"Basic", strings.Repeat("Basic, ", 16)}, nil, "more than 16 challenges"},
	} {
		got, err := ParseChallenges(c.in)
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%.100q: error %v, want %q", c.in, err, c.err)
			}
		case err != nil || !reflect.DeepEqual(got, c.want):
			t.Errorf("%.100q:\n got %+v, %v\nwant %+v", c.in, got, err, c.want)
		}
	}
	many := "Bearer "
	for i := range maxParams + 1 {
		many += fmt.Sprintf("p%d=v, ", i)
	}
	if _, err := ParseChallenges([]string{many}); err == nil || !strings.Contains(err.Error(), "parameters") {
		t.Errorf("too many parameters: %v", err)
	}
}

func FuzzParseChallenges(f *testing.F) {
	for _, s := range []string{`Bearer realm="https://a/t",service="r, s",scope="repository:a:pull"`, `Basic realm=x, Negotiate ab==`, `a b="\"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list, err := ParseChallenges([]string{s})
		if err != nil {
			return
		}
		var texts []string
		for _, c := range list {
			texts = append(texts, c.String())
		}
		again, err := ParseChallenges([]string{strings.Join(texts, ", ")})
		if err != nil || !reflect.DeepEqual(again, list) {
			t.Errorf("%q is %+v, whose text %q is %+v, %v", s, list, texts, again, err)
		}
	})
}

func TestParseScope(t *testing.T) { // T5
	for _, c := range []struct {
		in   string
		want Scope
		err  string
	}{
		{"repository:a/b:pull", Scope{Type: "repository", Name: "a/b", Actions: []string{"pull"}}, ""},
		{"repository:host:5000/a:push,pull,pull", Scope{Type: "repository", Name: "host:5000/a", Actions: []string{"pull", "push"}}, ""},
		{"repository(plugin):a:*", Scope{Type: "repository", Class: "plugin", Name: "a", Actions: []string{"*"}}, ""},
		{"registry:catalog:*", Catalog(), ""},
		{"repository:a:", Scope{Type: "repository", Name: "a"}, ""},
		{"repository:a:metadata_read", Scope{Type: "repository", Name: "a", Actions: []string{"metadata_read"}}, ""},
		{"repository:pull", Scope{}, "want TYPE"},
		{"pull", Scope{}, "want TYPE"},
		{":a:pull", Scope{}, "malformed type"},
		{"repository(:a:pull", Scope{}, "malformed class"},
		{"repository::pull", Scope{}, "malformed name"},
		{"repository:a b:pull", Scope{}, "malformed name"},
		{"repository:a\n:pull", Scope{}, "malformed name"},
		{"repository:a:pull,,push", Scope{}, "malformed action"},
		{"repository:a:Pull", Scope{}, "malformed action"},
		{"repository:" + strings.Repeat("a", maxScope) + ":pull", Scope{}, "longer than"},
	} {
		got, err := ParseScope(c.in)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%.60q: error %v, want %q", c.in, err, c.err)
			}
		} else if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %+v, %v, want %+v", c.in, got, err, c.want)
		}
	}
}

func TestMergeScopes(t *testing.T) {
	got := FormatScopes(MergeScopes([]Scope{Repository("b", "push"), Repository("a", "pull")}, []Scope{Repository("b", "pull", "push"), Catalog()}))
	if want := "registry:catalog:* repository:a:pull repository:b:pull,push"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if !covers([]Scope{Repository("a", "*")}, []Scope{Repository("a", "pull")}) || covers([]Scope{Repository("a", "pull")}, []Scope{Repository("a", "*")}) ||
		covers([]Scope{Repository("a", "pull")}, []Scope{Repository("b", "pull")}) {
		t.Error("covers")
	}
	if _, err := ParseScopes(strings.Repeat("repository:a:pull ", maxScopes+1)); err == nil {
		t.Error("too many scopes are taken")
	}
}

func FuzzParseScope(f *testing.F) {
	f.Add("repository(plugin):host:5000/a/b:pull,push")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseScope(s)
		if err != nil {
			return
		}
		b, err := ParseScope(a.String())
		if err != nil || !reflect.DeepEqual(a, b) || !slices.IsSorted(a.Actions) {
			t.Errorf("%q is %+v, %q is %+v, %v", s, a, a.String(), b, err)
		}
	})
}

func TestOrigin(t *testing.T) {
	for _, c := range []struct{ in, want, err string }{
		{"https://Example.com", "https://example.com", ""},
		{"https://example.com:443/", "https://example.com", ""},
		{"http://example.com:443", "http://example.com:443", ""},
		{"http://[::1]:0080", "http://[::1]", ""},
		{"https://example.com:5000", "https://example.com:5000", ""},
		{"https://user@example.com", "", "user information"},
		{"https://user:pw@example.com", "", "user information"},
		{"ftp://example.com", "", "want http or https"},
		{"https://", "", "no valid host"},
		{"https://a..b", "", "no valid host"},
		{"https://exa%6dple.com", "", "not a URL"},
		{"https://example.com:0", "", "no valid port"},
		{"https://example.com:70000", "", "no valid port"},
		{"https://example.com/path", "", "nothing after it"},
		{"example.com", "", "nothing after it"},
	} {
		o, err := ParseOrigin(c.in)
		if c.err == "" && (err != nil || o.String() != c.want) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%q: %s, %v, want %q, %q", c.in, o, err, c.want, c.err)
		}
		if err != nil && strings.Contains(err.Error(), "pw") {
			t.Errorf("a password is in the error: %v", err)
		}
	}
}

func TestRedaction(t *testing.T) {
	o := originOf(t, "https://r.example.com")
	s := Secret{Username: "alice", Password: "hunter2", IdentityToken: "hunter2", RegistryToken: "hunter2"}
	c := credential(t, o, s)
	type outer struct {
		S Secret
		C Credential
		P *Credential
	}
	for _, v := range []any{s, &s, c, &c, outer{s, c, &c}, []Secret{s}, map[string]Credential{"x": c}, Static{c}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			if out := fmt.Sprintf(verb, v); strings.Contains(out, "hunter2") || strings.Contains(out, "68756e74657232") {
				t.Errorf("%s of %T: %s", verb, v, out)
			}
		}
	}
	if out, err := json.Marshal([]any{s, c}); err != nil || strings.Contains(string(out), "hunter2") {
		t.Errorf("as JSON: %s, %v", out, err)
	}
	if _, err := NewCredential(o, Secret{RegistryToken: "a\r\nX: y"}, ""); err == nil {
		t.Error("a line break in a token is taken")
	}
}
