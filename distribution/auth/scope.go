package auth

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

const (
	maxScope  = 1024 // bytes of one scope
	maxScopes = 64   // scopes of one request
)

// Scope is what a token allows: actions on one resource (distribution "Token Scope Documentation").
type Scope struct {
	Type    string   // repository, registry
	Class   string   // of a repository: plugin, image; usually empty
	Name    string   // may hold a host with a port
	Actions []string // pull, push, delete, *; sorted, without duplicates, as the functions here return them
}

// Repository returns the scope of actions on a repository.
func Repository(name string, actions ...string) Scope {
	return Scope{Type: "repository", Name: name, Actions: actions}.normal()
}

// Catalog returns the scope that lists all repositories.
func Catalog() Scope { return Scope{Type: "registry", Name: "catalog", Actions: []string{"*"}} }

func (s Scope) normal() Scope {
	s.Actions = slices.Compact(slices.Sorted(slices.Values(s.Actions)))
	return s
}

// ParseScope parses type[(class)]:name:action[,action]. The name ends at the last colon. A scope without an action allows
// nothing and is legal.
func ParseScope(text string) (Scope, error) {
	bad := func(why string) (Scope, error) { return Scope{}, fmt.Errorf("parse scope %.300q: %s", text, why) }
	if len(text) > maxScope {
		return bad(fmt.Sprintf("longer than %d bytes", maxScope))
	}
	first, last := strings.IndexByte(text, ':'), strings.LastIndexByte(text, ':')
	if first < 0 || first == last {
		return bad("want TYPE:NAME:ACTION[,ACTION]")
	}
	s := Scope{Type: text[:first], Name: text[first+1 : last]}
	if open := strings.IndexByte(s.Type, '('); open >= 0 {
		class, ok := strings.CutSuffix(s.Type[open+1:], ")")
		if !ok || !word(class) {
			return bad("malformed class")
		}
		s.Type, s.Class = s.Type[:open], class
	}
	if !word(s.Type) {
		return bad("malformed type")
	}
	if s.Name == "" || strings.ContainsFunc(s.Name, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' }) {
		return bad("malformed name")
	}
	if actions := text[last+1:]; actions != "" {
		for a := range strings.SplitSeq(actions, ",") {
			if a != "*" && !word(a) {
				return bad("malformed action")
			}
			s.Actions = append(s.Actions, a)
		}
	}
	return s.normal(), nil
}

// word knows [a-z0-9_]+, and the dashes that some registries use.
func word(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_-") == ""
}

// ParseScopes parses scopes with spaces between them, as in a challenge or a token request. Equal resources are merged.
func ParseScopes(text string) ([]Scope, error) {
	fields := strings.Fields(text)
	if len(fields) > maxScopes {
		return nil, fmt.Errorf("parse scopes: %d, at most %d", len(fields), maxScopes)
	}
	var all []Scope
	for _, f := range fields {
		s, err := ParseScope(f)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return MergeScopes(all), nil
}

// String returns the text that ParseScope reads as s.
func (s Scope) String() string {
	t := s.Type
	if s.Class != "" {
		t += "(" + s.Class + ")"
	}
	return t + ":" + s.Name + ":" + strings.Join(s.Actions, ",")
}

// Contains reports whether s allows all that o does.
func (s Scope) Contains(o Scope) bool {
	if s.Type != o.Type || s.Class != o.Class || s.Name != o.Name {
		return false
	}
	for _, a := range o.Actions {
		if !slices.Contains(s.Actions, a) && !slices.Contains(s.Actions, "*") {
			return false
		}
	}
	return true
}

// MergeScopes returns the union: one scope for each resource, sorted, so that equal sets are equal texts.
func MergeScopes(lists ...[]Scope) []Scope {
	var out []Scope
	for _, list := range lists {
		for _, s := range list {
			i := slices.IndexFunc(out, func(o Scope) bool { return o.Type == s.Type && o.Class == s.Class && o.Name == s.Name })
			if i < 0 {
				out = append(out, s.normal())
			} else {
				out[i].Actions = slices.Concat(out[i].Actions, s.Actions)
				out[i] = out[i].normal()
			}
		}
	}
	slices.SortFunc(out, func(a, b Scope) int { return strings.Compare(a.String(), b.String()) })
	return out
}

// FormatScopes returns the scopes with a space between them.
func FormatScopes(list []Scope) string {
	var b strings.Builder
	for i, s := range list {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(s.String())
	}
	return b.String()
}

type scopesKey struct{}

// WithScopes returns a context whose requests ask for tokens with these scopes, and those that ctx asks for already. A push
// needs pull and push; a mount pull on the other repository, too.
func WithScopes(ctx context.Context, s ...Scope) context.Context {
	return context.WithValue(ctx, scopesKey{}, MergeScopes(scopesOf(ctx), s))
}

func scopesOf(ctx context.Context) []Scope {
	s, _ := ctx.Value(scopesKey{}).([]Scope)
	return s
}
