// Package flags parses command lines in the style that callers of OCI runtimes use: one dash or two before long and short
// names alike, "--name value" or "--name=value", several sets of flags on one line.
package flags

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Set is a list of flags and where their values go. The zero Set is empty. It is not safe for concurrent use.
type Set struct {
	flags []flag

	// Stop ends the flags at the first argument that is none. Otherwise they may come after it too.
	Stop bool
}

type flag struct {
	names  []string // without dashes, the longest first
	value  string   // what the usage calls the value; empty for a boolean
	usage  string   // empty: not in the usage
	set    func(string) error
	isBool bool
}

// String defines a flag whose value goes to p as it is. names are separated by commas, the long one first.
func (s *Set) String(p *string, names, value, usage string) {
	s.add(names, value, usage, func(v string) error { *p = v; return nil })
}

// Strings defines a flag that may be given several times.
func (s *Set) Strings(p *[]string, names, value, usage string) {
	s.add(names, value, usage, func(v string) error { *p = append(*p, v); return nil })
}

// Int defines a flag with a decimal value.
func (s *Set) Int(p *int, names, value, usage string) {
	s.add(names, value, usage, func(v string) error {
		n, err := strconv.Atoi(v)
		*p = n
		return reason(err)
	})
}

// Func defines a flag whose value set judges.
func (s *Set) Func(set func(string) error, names, value, usage string) {
	s.add(names, value, usage, set)
}

// Duration defines a flag with a value such as "5s".
func (s *Set) Duration(p *time.Duration, names, value, usage string) {
	s.add(names, value, usage, func(v string) error {
		d, err := time.ParseDuration(v)
		*p = d
		return err
	})
}

// Bool defines a flag that needs no value and takes one after an equals sign.
func (s *Set) Bool(p *bool, names, usage string) {
	s.flags = append(s.flags, flag{strings.Split(names, ","), "", usage, func(v string) error {
		b, err := strconv.ParseBool(v)
		*p = b
		return reason(err)
	}, true})
}

func (s *Set) add(names, value, usage string, set func(string) error) {
	s.flags = append(s.flags, flag{strings.Split(names, ","), value, usage, set, false})
}

// reason leaves out the text of strconv that repeats the value.
func reason(err error) error {
	if e, ok := err.(*strconv.NumError); ok {
		return e.Err
	}
	return err
}

func (s *Set) find(name string) *flag {
	for i := range s.flags {
		for _, n := range s.flags[i].names {
			if n == name {
				return &s.flags[i]
			}
		}
	}
	return nil
}

// Parse sets the flags of args and returns the other arguments. A flag that s does not have is looked for in the sets more.
// "--" ends the flags. An error is a sentence for the user.
func (s *Set) Parse(args []string, more ...*Set) (rest []string, err error) {
	for len(args) > 0 {
		arg := args[0]
		if len(arg) < 2 || arg[0] != '-' {
			if s.Stop {
				return append(rest, args...), nil
			}
			rest, args = append(rest, arg), args[1:]
			continue
		}
		args = args[1:]
		if arg == "--" {
			return append(rest, args...), nil
		}
		name, value, given := strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
		f := s.find(name)
		for i := 0; f == nil && i < len(more); i++ {
			f = more[i].find(name)
		}
		switch {
		case f == nil || name == "":
			return nil, fmt.Errorf("flag provided but not defined: -%s", name)
		case f.isBool && !given:
			value = "true"
		case !given && len(args) == 0:
			return nil, fmt.Errorf("flag needs an argument: -%s", name)
		case !given:
			value, args = args[0], args[1:]
		}
		if err := f.set(value); err != nil {
			return nil, fmt.Errorf("invalid value %q for flag -%s: %w", value, name, err)
		}
	}
	return rest, nil
}

// Usage writes a line for each flag that has a usage.
func (s *Set) Usage(w io.Writer) {
	width := 0
	for i := range s.flags {
		if s.flags[i].usage != "" {
			width = max(width, len(s.flags[i].head()))
		}
	}
	for i := range s.flags {
		if f := &s.flags[i]; f.usage != "" {
			fmt.Fprintf(w, "   %-*s  %s\n", width, f.head(), f.usage)
		}
	}
}

// head is the flag's names with dashes, and the name of its value.
func (f *flag) head() string {
	var parts []string
	for _, n := range f.names {
		dash := "--"
		if len(n) == 1 {
			dash = "-"
		}
		part := dash + n
		if f.value != "" {
			part += " " + f.value
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}
