package flags

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

type values struct {
	bundle   string
	env      []string
	n        int
	detach   bool
	Interval time.Duration
	debug    bool
}

func parse(stop bool, args ...string) (v values, rest []string, err error) {
	s := Set{Stop: stop}
	s.String(&v.bundle, "bundle,b", "DIR", "the bundle")
	s.Strings(&v.env, "env,e", "K=V", "variable")
	s.Int(&v.n, "preserve-fds", "N", "")
	s.Bool(&v.detach, "detach,d", "detach")
	s.Duration(&v.Interval, "interval", "TIME", "interval")
	var global Set
	global.Bool(&v.debug, "debug", "debug")
	rest, err = s.Parse(args, &global)
	return v, rest, err
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		args, want string // the arguments have no spaces in them
		stop       bool
	}{
		{"", "{ [] 0 false 0s false} []", false},
		{"--bundle B id", "{B [] 0 false 0s false} [id]", false},
		{"-bundle=B --b C -b=D id", "{D [] 0 false 0s false} [id]", false},
		{"-e A=1 --env=B=2=3 -d --debug", "{ [A=1 B=2=3] 0 true 0s true} []", false},
		{"-detach=false --detach=0 --preserve-fds -3", "{ [] -3 false 0s false} []", false},
		{"id -d x --interval 5s", "{ [] 0 true 5s false} [id x]", false},
		{"-d id -d x -nosuch", "{ [] 0 true 0s false} [id -d x -nosuch]", true},
		{"-d -- -x", "{ [] 0 true 0s false} [-x]", false},
		{"id -- -x", "{ [] 0 false 0s false} [id -x]", false},
		{"id - x", "{ [] 0 false 0s false} [id - x]", false},
		{"--bundle= id", "{ [] 0 false 0s false} [id]", false},
		{"--bundle -- id", "{-- [] 0 false 0s false} [id]", false},
	} {
		v, rest, err := parse(c.stop, strings.Fields(c.args)...)
		if got := fmt.Sprint(v, rest); err != nil || got != c.want {
			t.Errorf("%s: %s, %v; want %s", c.args, got, err, c.want)
		}
	}
}

func TestErrors(t *testing.T) {
	for args, want := range map[string]string{
		"--nosuch":           "flag provided but not defined: -nosuch",
		"id -x=1":            "flag provided but not defined: -x",
		"-=x":                "flag provided but not defined: -",
		"---debug":           "flag provided but not defined: --debug",
		"--bundle":           "flag needs an argument: -bundle",
		"-d=maybe":           `invalid value "maybe" for flag -d: invalid syntax`,
		"--preserve-fds=x":   `invalid value "x" for flag -preserve-fds: invalid syntax`,
		"--preserve-fds 9e9": `invalid value "9e9" for flag -preserve-fds: invalid syntax`,
		"--interval five":    `invalid value "five" for flag -interval: time: invalid duration "five"`,
		"--preserve-fds 1" + strings.Repeat("0", 30): `invalid value "1` + strings.Repeat("0", 30) + `" for flag -preserve-fds: value out of range`,
	} {
		if _, _, err := parse(false, strings.Fields(args)...); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
}

func TestUsage(t *testing.T) {
	var s Set
	var v string
	var b bool
	s.String(&v, "bundle,b", "DIR", "the bundle")
	s.String(&v, "secret", "X", "")
	s.Bool(&b, "detach,d", "come back")
	var out strings.Builder
	s.Usage(&out)
	if want := "   --bundle DIR, -b DIR  the bundle\n   --detach, -d          come back\n"; out.String() != want {
		t.Errorf("usage:\n%swant:\n%s", out.String(), want)
	}
}
