package access

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// An Action is something that a rule allows to do with a repository.
type Action string

// The actions. Push includes Create. None of them includes Pull or Delete.
const (
	Pull   Action = "pull"   // read blobs, manifests, tags and referrers
	Create Action = "create" // push blobs and manifests, and tags that do not exist
	Push   Action = "push"   // the same, and move tags that exist
	Delete Action = "delete" // delete tags, manifests and blobs
)

// actions are all of them, in the order in which they are printed.
var actions = []Action{Pull, Create, Push, Delete}

// A Rule allows some subjects some actions in some repositories. Rules only ever add up; nothing takes away.
type Rule struct {
	// Repositories are patterns of names: "*" is any part of one component, "?" one character of it, "**" as a whole component
	// any number of components, also none. "team/**" is team and everything below.
	Repositories []string
	Users        []string // "*" is everybody who has logged in
	Groups       []string
	Anonymous    bool // everybody, with or without a login
	Actions      []Action
}

// A Policy says who may do what. It is not changed after Check, and then may be used from several goroutines at once.
type Policy struct {
	Rules  []Rule
	Groups map[string][]string // users by group
}

// Check returns an error that names the first rule (counted from 1) that makes no sense: a rule that would never apply is
// usually a slip of the pen that somebody relies on.
func (p *Policy) Check() error {
	for i, r := range p.Rules {
		if err := p.checkRule(r); err != nil {
			return fmt.Errorf("permission %d: %w", i+1, err)
		}
	}
	return nil
}

func (p *Policy) checkRule(r Rule) error {
	switch {
	case len(r.Repositories) == 0:
		return errors.New("no repositories")
	case len(r.Actions) == 0:
		return errors.New("no actions")
	case len(r.Users) == 0 && len(r.Groups) == 0 && !r.Anonymous:
		return errors.New("neither users nor groups nor anonymous")
	}
	for _, a := range r.Actions {
		if !slices.Contains(actions, a) {
			return fmt.Errorf("unknown action %q (there are: pull, create, push, delete)", a)
		}
	}
	for _, pattern := range r.Repositories {
		if err := checkPattern(pattern); err != nil {
			return fmt.Errorf("pattern %q: %w", pattern, err)
		}
	}
	return nil
}

func checkPattern(pattern string) error {
	for part := range strings.SplitSeq(pattern, "/") {
		switch {
		case part == "":
			return errors.New("empty component")
		case part != "**" && strings.Contains(part, "**"):
			return errors.New(`"**" must be a whole component`)
		}
		for _, c := range part {
			if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789._-*?", c) {
				return fmt.Errorf("%q is in no repository's name", c)
			}
		}
	}
	return nil
}

// Match reports whether a repository's name matches a pattern.
func Match(pattern, repository string) bool {
	return matchParts(strings.Split(pattern, "/"), strings.Split(repository, "/"))
}

// matchParts needs no more than the product of both lengths: of a failed "**" only the last is tried again.
func matchParts(pattern, name []string) bool {
	p, n, star, mark := 0, 0, -1, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == "**":
			star, mark = p, n
			p++
		case p < len(pattern) && matchPart(pattern[p], name[n]):
			p, n = p+1, n+1
		case star >= 0:
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == "**" {
		p++
	}
	return p == len(pattern)
}

// matchPart matches one component, in the same way.
func matchPart(pattern, name string) bool {
	p, n, star, mark := 0, 0, -1, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p, n = p+1, n+1
		case star >= 0:
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// Allowed returns what user, "" for nobody, may do in a repository. groups are those that the user is in beside the policy's.
// Nothing is remembered between calls: a user that has left a group has lost its rights with the next request.
func (p *Policy) Allowed(user string, groups []string, repository string) []Action {
	var out []Action
	for _, r := range p.Rules {
		if !p.concerns(r, user, groups) {
			continue
		}
		if !slices.ContainsFunc(r.Repositories, func(pattern string) bool { return Match(pattern, repository) }) {
			continue
		}
		for _, a := range r.Actions {
			if !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

// concerns reports whether a rule is for a user. The empty name is nobody, and never a member of anything.
func (p *Policy) concerns(r Rule, user string, groups []string) bool {
	if r.Anonymous {
		return true
	}
	if user == "" {
		return false
	}
	if slices.Contains(r.Users, user) || slices.Contains(r.Users, "*") {
		return true
	}
	return slices.ContainsFunc(r.Groups, func(g string) bool {
		return slices.Contains(groups, g) || slices.Contains(p.Groups[g], user)
	})
}

// Anonymous reports whether anybody may do anything without a login.
func (p *Policy) Anonymous() bool {
	return slices.ContainsFunc(p.Rules, func(r Rule) bool { return r.Anonymous })
}

// includes reports whether granted actions allow a: push includes create.
func includes(granted []Action, a Action) bool {
	return slices.Contains(granted, a) || a == Create && slices.Contains(granted, Push)
}
