package getopt

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

type values struct {
	tty, in, rm bool
	name        string
	env         []string
}

func set(v *values) *Set {
	s := &Set{}
	s.Bool(&v.tty, "tty", 't', "a terminal")
	s.Bool(&v.in, "interactive", 'i', "stdin")
	s.Bool(&v.rm, "rm", 0, "remove")
	s.String(&v.name, "name", 0, "NAME", "the name")
	s.Strings(&v.env, "env", 'e', "K=V", "a variable\nin two lines")
	return s
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		line string
		want values
		rest string
	}{
		{"", values{}, ""},
		{"img -it", values{}, "img -it"},
		{"-it img", values{tty: true, in: true}, "img"},
		{"-ite A=1 img", values{tty: true, in: true, env: []string{"A=1"}}, "img"},
		{"-eA=1 -e=B=2 --env C=3 --env=D=4 img --env E", values{env: []string{"A=1", "B=2", "C=3", "D=4"}}, "img --env E"},
		{"--rm --name=x --tty=false img", values{rm: true, name: "x"}, "img"},
		{"-t=false img", values{}, "img"},
		{"--name -x -- -img", values{name: "-x"}, "-img"},
		{"- a", values{}, "- a"},
	} {
		var v values
		rest, err := set(&v).Parse(strings.Fields(c.line))
		if err != nil {
			t.Errorf("%q: %v", c.line, err)
			continue
		}
		if !reflect.DeepEqual(v, c.want) || strings.Join(rest, " ") != c.rest {
			t.Errorf("%q: got %+v %q, want %+v %q", c.line, v, rest, c.want, c.rest)
		}
	}
}

func TestParseMixed(t *testing.T) {
	for _, c := range []struct {
		line string
		want values
		rest string
	}{
		{"", values{}, ""},
		{"a -t b --name x c", values{tty: true, name: "x"}, "a b c"},
		{"a -t -- b -i", values{tty: true}, "a b -i"},
		{"a --name -- -t", values{tty: true, name: "--"}, "a"},
		{"--name -- a -t", values{tty: true, name: "--"}, "a"},
		{"-- -t", values{}, "-t"},
		{"- -t", values{tty: true}, "-"},
	} {
		var v values
		rest, err := set(&v).ParseMixed(strings.Fields(c.line))
		if err != nil || !reflect.DeepEqual(v, c.want) || strings.Join(rest, " ") != c.rest {
			t.Errorf("%q: got %+v %q, %v, want %+v %q", c.line, v, rest, err, c.want, c.rest)
		}
	}
	if _, err := set(&values{}).ParseMixed([]string{"a", "--nope"}); err == nil {
		t.Error("an unknown option behind an operand is taken")
	}
	if o := set(&values{}).Options(); len(o) != 5 || o[0] != (Option{"tty", 't', "", "a terminal"}) || o[3].Arg != "NAME" {
		t.Errorf("options %+v", o)
	}
}

func TestParseErrors(t *testing.T) {
	for line, want := range map[string]string{
		"--nope":       "unknown option --nope",
		"-ix":          "unknown option -x in -ix",
		"--name":       "option --name needs a value (NAME)",
		"-te":          "option -e needs a value (K=V)",
		"--rm=perhaps": `option --rm: "perhaps" is neither true nor false`,
		"-i=perhaps":   `option -i: "perhaps" is neither true nor false`,
	} {
		if _, err := set(&values{}).Parse(strings.Fields(line)); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", line, err, want)
		}
	}
	for _, line := range []string{"--help", "-i -?"} {
		if _, err := set(&values{}).Parse(strings.Fields(line)); !errors.Is(err, ErrHelp) {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func TestUsage(t *testing.T) {
	var b strings.Builder
	set(&values{}).Usage(&b)
	for _, want := range []string{"  -t, --tty          a terminal\n", "      --name NAME    the name\n", "a variable\n                     in two lines\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in:\n%s", want, b.String())
		}
	}
}
