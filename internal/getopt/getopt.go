// Package getopt parses command lines as docker's users type them: --long VALUE, --long=VALUE, -s VALUE, -sVALUE, several
// short switches in one word (-it), and options only before the first operand, so that the rest belongs to the container.
package getopt

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// ErrHelp says that -? or --help was asked for.
var ErrHelp = errors.New("help wanted")

// A Set is the options of one command. The zero value has none.
type Set struct {
	options []option
}

type option struct {
	long  string
	short byte   // 0: none
	arg   string // name of the value in the help; empty for a switch
	help  string
	set   func(value string) error
}

// Bool adds a switch: --long, -s, --long=false.
func (s *Set) Bool(p *bool, long string, short byte, help string) {
	s.options = append(s.options, option{long, short, "", help, func(v string) error {
		b, err := strconv.ParseBool(v)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", v)
		}
		*p = b
		return nil
	}})
}

// String adds an option whose last value wins.
func (s *Set) String(p *string, long string, short byte, arg, help string) {
	s.Func(long, short, arg, help, func(v string) error { *p = v; return nil })
}

// Strings adds an option that may be repeated.
func (s *Set) Strings(p *[]string, long string, short byte, arg, help string) {
	s.Func(long, short, arg, help, func(v string) error { *p = append(*p, v); return nil })
}

// Func adds an option whose value goes to set; its error stops the parse.
func (s *Set) Func(long string, short byte, arg, help string, set func(string) error) {
	s.options = append(s.options, option{long, short, arg, help, set})
}

// Hidden adds an option that no help shows: for what is refused with a reason.
func (s *Set) Hidden(long string, short byte, arg string, set func(string) error) {
	s.options = append(s.options, option{long, short, arg, hidden, set})
}

// hidden is the help of an option that has none.
const hidden = "\x00"

// Parse sets the options that args begins with and returns the operands: everything from the first word that is no option
// (a single dash is none), or after "--".
func (s *Set) Parse(args []string) ([]string, error) {
	operands, _, err := s.parse(args)
	return operands, err
}

// parse also tells whether the options ended by "--".
func (s *Set) parse(args []string) (operands []string, ended bool, err error) {
	for len(args) > 0 {
		word := args[0]
		if len(word) < 2 || word[0] != '-' {
			break
		}
		args = args[1:]
		if word == "--" {
			return args, true, nil
		}
		if strings.HasPrefix(word, "--") {
			args, err = s.parseLong(word[2:], args)
		} else {
			args, err = s.parseShort(word, args)
		}
		if err != nil {
			return nil, false, err
		}
	}
	return args, false, nil
}

// ParseMixed sets the options in args, wherever they are before a "--", and returns the operands.
func (s *Set) ParseMixed(args []string) ([]string, error) {
	var operands []string
	for {
		rest, ended, err := s.parse(args)
		if err != nil {
			return nil, err
		}
		if ended || len(rest) == 0 {
			return append(operands, rest...), nil
		}
		operands, args = append(operands, rest[0]), rest[1:]
	}
}

// An Option describes one option of a set.
type Option struct {
	Long  string
	Short byte   // 0: none
	Arg   string // name of the value; empty for a switch
	Help  string
}

// Options returns the options, without the hidden ones, in the order in which they were added.
func (s *Set) Options() []Option {
	var list []Option
	for _, o := range s.options {
		if o.help != hidden {
			list = append(list, Option{o.long, o.short, o.arg, o.help})
		}
	}
	return list
}

func (s *Set) parseLong(word string, args []string) ([]string, error) {
	name, value, given := strings.Cut(word, "=")
	if name == "help" {
		return nil, ErrHelp
	}
	o := s.find(func(o *option) bool { return o.long == name })
	if o == nil {
		return nil, fmt.Errorf("unknown option --%s", name)
	}
	if !given && o.arg == "" {
		value, given = "true", true
	}
	if !given {
		if len(args) == 0 {
			return nil, fmt.Errorf("option --%s needs a value (%s)", name, o.arg)
		}
		value, args = args[0], args[1:]
	}
	if err := o.set(value); err != nil {
		return nil, fmt.Errorf("option --%s: %w", name, err)
	}
	return args, nil
}

func (s *Set) parseShort(word string, args []string) ([]string, error) {
	for i := 1; i < len(word); i++ {
		c := word[i]
		if c == '?' {
			return nil, ErrHelp
		}
		o := s.find(func(o *option) bool { return o.short == c && c != 0 })
		if o == nil {
			return nil, fmt.Errorf("unknown option -%c in %s", c, word)
		}
		rest := word[i+1:]
		if o.arg == "" && !strings.HasPrefix(rest, "=") {
			if err := o.set("true"); err != nil {
				return nil, fmt.Errorf("option -%c: %w", c, err)
			}
			continue
		}
		value := strings.TrimPrefix(rest, "=")
		if rest == "" {
			if len(args) == 0 {
				return nil, fmt.Errorf("option -%c needs a value (%s)", c, o.arg)
			}
			value, args = args[0], args[1:]
		}
		if err := o.set(value); err != nil {
			return nil, fmt.Errorf("option -%c: %w", c, err)
		}
		return args, nil
	}
	return args, nil
}

func (s *Set) find(match func(*option) bool) *option {
	for i := range s.options {
		if match(&s.options[i]) {
			return &s.options[i]
		}
	}
	return nil
}

// Usage writes the options with their help, one a line, in the order in which they were added.
func (s *Set) Usage(w io.Writer) {
	width := 0
	left := make([]string, len(s.options))
	for i, o := range s.options {
		left[i] = "      --" + o.long
		if o.short != 0 {
			left[i] = "  -" + string(rune(o.short)) + ", --" + o.long
		}
		if o.arg != "" {
			left[i] += " " + o.arg
		}
		width = max(width, len(left[i]))
	}
	for i, o := range s.options {
		if o.help == hidden {
			continue
		}
		help := strings.ReplaceAll(o.help, "\n", "\n"+strings.Repeat(" ", width+2))
		fmt.Fprintf(w, "%-*s  %s\n", width, left[i], help)
	}
}
