package auth

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	maxChallengeBytes = 16 << 10 // of all WWW-Authenticate headers of a response
	maxChallenges     = 16
	maxParams         = 32
)

// Challenge is one way to prove an identity that a server offers in WWW-Authenticate (RFC 9110, section 11.6.1).
type Challenge struct {
	Scheme string            // lower case: bearer, basic
	Params map[string]string // names in lower case; values without quotes
	Token  string            // the token68 form, in place of Params
}

// ParseChallenges parses all values of the WWW-Authenticate header of one response: several challenges in a value, several
// values, quoted strings with commas in them. It refuses what is malformed, a parameter twice in one challenge, more than
// 16 KiB, 16 challenges or 32 parameters.
func ParseChallenges(values []string) ([]Challenge, error) {
	total := 0
	var all []Challenge
	for _, v := range values {
		if total += len(v); total > maxChallengeBytes {
			return nil, fmt.Errorf("parse WWW-Authenticate: more than %d bytes", maxChallengeBytes)
		}
		p := challengeParser{rest: v}
		list, err := p.list()
		if err != nil {
			return nil, fmt.Errorf("parse WWW-Authenticate %.300q: %w", v, err)
		}
		if all = append(all, list...); len(all) > maxChallenges {
			return nil, fmt.Errorf("parse WWW-Authenticate: more than %d challenges", maxChallenges)
		}
	}
	return all, nil
}

type challengeParser struct{ rest string }

func (p *challengeParser) space() bool {
	n := len(p.rest)
	p.rest = strings.TrimLeft(p.rest, " \t")
	return len(p.rest) < n
}

// commas skips spaces and empty list elements.
func (p *challengeParser) commas() { p.rest = strings.TrimLeft(p.rest, " \t,") }

const tokenPunctuation = "!#$%&'*+-.^_`|~"

func tokenByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(tokenPunctuation, c) >= 0
}

func (p *challengeParser) token() string {
	i := 0
	for i < len(p.rest) && tokenByte(p.rest[i]) {
		i++
	}
	t := p.rest[:i]
	p.rest = p.rest[i:]
	return t
}

// list parses challenges up to the end.
func (p *challengeParser) list() ([]Challenge, error) {
	var all []Challenge
	for p.commas(); p.rest != ""; p.commas() {
		scheme := p.token()
		if scheme == "" {
			return nil, errors.New("want a scheme")
		}
		c := Challenge{Scheme: strings.ToLower(scheme), Params: map[string]string{}}
		if p.rest != "" && !p.space() && p.rest[0] != ',' {
			return nil, errors.New("want a space after the scheme")
		}
		if err := p.params(&c); err != nil {
			return nil, err
		}
		if all = append(all, c); len(all) > maxChallenges {
			return nil, fmt.Errorf("more than %d challenges", maxChallenges)
		}
	}
	return all, nil
}

// params parses the parameters of c, up to the next scheme or the end.
func (p *challengeParser) params(c *Challenge) error {
	if t, ok := p.token68(); ok {
		c.Token = t
		return nil
	}
	for {
		p.commas()
		before := p.rest
		name := strings.ToLower(p.token())
		p.space()
		if name == "" || !strings.HasPrefix(p.rest, "=") {
			p.rest = before // the next challenge's scheme, or what list complains about
			return nil
		}
		p.rest = p.rest[1:]
		p.space()
		value, err := p.value()
		if err != nil {
			return err
		}
		if _, twice := c.Params[name]; twice {
			return fmt.Errorf("parameter %.40q twice", name)
		}
		if c.Params[name] = value; len(c.Params) > maxParams {
			return fmt.Errorf("more than %d parameters", maxParams)
		}
		p.space()
		if p.rest != "" && p.rest[0] != ',' {
			return errors.New("want a comma after a parameter")
		}
	}
}

// token68 parses the form that has no parameters: a run of base64 characters that ends the challenge.
func (p *challengeParser) token68() (string, bool) {
	i := 0
	for i < len(p.rest) && (tokenByte(p.rest[i]) || p.rest[i] == '/') {
		i++
	}
	j := i
	for j < len(p.rest) && p.rest[j] == '=' {
		j++
	}
	after := strings.TrimLeft(p.rest[j:], " \t")
	if i == 0 || after != "" && after[0] != ',' {
		return "", false
	}
	t := p.rest[:j]
	p.rest = after
	return t, true
}

// value parses a quoted string, or what is there up to a space or comma: more than a token, because some registries do not
// quote URLs.
func (p *challengeParser) value() (string, error) {
	if !strings.HasPrefix(p.rest, `"`) {
		i := 0
		for i < len(p.rest) && p.rest[i] > ' ' && p.rest[i] < 0x7f && strings.IndexByte(`,"\`, p.rest[i]) < 0 {
			i++
		}
		v := p.rest[:i]
		p.rest = p.rest[i:]
		if v == "" {
			return "", errors.New("want a value after =")
		}
		return v, nil
	}
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			p.rest = p.rest[i+1:]
			return b.String(), nil
		case c == '\\' && i+1 < len(p.rest):
			i++
			if p.rest[i] < ' ' && p.rest[i] != '\t' || p.rest[i] == 0x7f {
				return "", errors.New("control character in a quoted string")
			}
			b.WriteByte(p.rest[i])
		case c < ' ' && c != '\t' || c == 0x7f:
			return "", errors.New("control character in a quoted string")
		default:
			b.WriteByte(c)
		}
	}
	return "", errors.New("a quoted string does not end")
}

// String returns the challenge as a value of WWW-Authenticate, for servers: realm first, then the others sorted, all
// quoted.
func (c Challenge) String() string {
	scheme := c.Scheme
	if scheme != "" {
		scheme = strings.ToUpper(scheme[:1]) + scheme[1:]
	}
	if c.Token != "" {
		return scheme + " " + c.Token
	}
	var names []string
	for n := range c.Params {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b string) int {
		if (a == "realm") != (b == "realm") {
			if a == "realm" {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	for i, n := range names {
		names[i] = n + `="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(c.Params[n]) + `"`
	}
	return strings.TrimSuffix(scheme+" "+strings.Join(names, ","), " ")
}

// find returns the first challenge of a scheme.
func find(list []Challenge, scheme string) (Challenge, bool) {
	i := slices.IndexFunc(list, func(c Challenge) bool { return c.Scheme == scheme })
	if i < 0 {
		return Challenge{}, false
	}
	return list[i], true
}
