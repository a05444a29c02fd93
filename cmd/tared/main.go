// Command tared is the server side of tare. Its subcommand registry serves images; each subcommand has a file of its own that
// turns words into calls of a package.
package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/tare-oci/tare/internal/getopt"
)

// version is what the next release will be called.
var version = "0.1.0-dev"

// A command is one subcommand.
type command struct {
	name    string
	also    string // another name, for people who expect it there; not in the list
	summary string
	more    string // what the help says after the options
	// setup adds the options and returns what runs the command.
	setup func(*getopt.Set) func() error
}

// commands returns the subcommands; of two that begin alike the longer one is first.
func commands() []command { return []command{gcCommand, registryCommand, versionCommand} }

var versionCommand = command{
	name:    "version",
	summary: "Print the version",
	setup: func(*getopt.Set) func() error {
		return func() error {
			fmt.Println("tared version " + version)
			return nil
		}
	},
}

func main() {
	if err := dispatch(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "tared: "+err.Error())
		var wrong usageError
		if errors.As(err, &wrong) {
			os.Exit(exitUsage)
		}
		os.Exit(exitFailed)
	}
}

// Exit statuses: of what went wrong, and of a command line that is not understood.
const (
	exitFailed = 1
	exitUsage  = 2
)

// usageError is an error of the command line.
type usageError struct{ error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func dispatch(args []string) error {
	if len(args) == 0 || args[0] == "--help" || args[0] == "-h" {
		fmt.Print("Usage: tared COMMAND [OPTION…]\n\n")
		for _, c := range commands() {
			fmt.Printf("  %-11s  %s\n", c.name, c.summary)
		}
		fmt.Print("\ntared COMMAND --help tells more about one.\n")
		return nil
	}
	if args[0] == "--version" {
		args = []string{"version"}
	}
	for _, c := range commands() {
		for _, name := range []string{c.name, c.also} {
			words := strings.Fields(name)
			if len(words) > 0 && len(args) >= len(words) && slices.Equal(words, args[:len(words)]) {
				return c.run(args[len(words):])
			}
		}
	}
	return usage("unknown command %q (tared --help lists them)", args[0])
}

func (c command) run(args []string) error {
	var set getopt.Set
	do := c.setup(&set)
	operands, err := set.Parse(args)
	if errors.Is(err, getopt.ErrHelp) {
		fmt.Printf("Usage: tared %s [OPTION…]\n\n%s.\n\n", c.name, c.summary)
		set.Usage(os.Stdout)
		fmt.Print(c.more)
		return nil
	}
	if err == nil && len(operands) > 0 {
		err = fmt.Errorf("unexpected operand %q", operands[0])
	}
	if err != nil {
		return usage("%s: %w (tared %s --help)", c.name, err, c.name)
	}
	return do()
}
