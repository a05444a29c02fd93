// Command tared is the server side of tare. Its subcommand registry serves images; each subcommand has a file of its own that
// turns words into calls of a package.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/tare-oci/tare/internal/getopt"
)

// version is what the next release will be called.
var version = "0.1.0-dev"

// A command is one subcommand.
type command struct {
	name    string
	summary string
	// setup adds the options and returns what runs the command.
	setup func(*getopt.Set) func() error
}

func commands() []command { return []command{registryCommand, versionCommand} }

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
		os.Exit(1)
	}
}

func dispatch(args []string) error {
	if len(args) == 0 || args[0] == "--help" || args[0] == "-h" {
		fmt.Print("Usage: tared COMMAND [OPTION…]\n\n")
		for _, c := range commands() {
			fmt.Printf("  %-8s  %s\n", c.name, c.summary)
		}
		fmt.Print("\ntared COMMAND --help tells more about one.\n")
		return nil
	}
	if args[0] == "--version" {
		args = []string{"version"}
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(args[1:])
		}
	}
	return fmt.Errorf("unknown command %q (tared --help lists them)", args[0])
}

func (c command) run(args []string) error {
	var set getopt.Set
	do := c.setup(&set)
	operands, err := set.Parse(args)
	if errors.Is(err, getopt.ErrHelp) {
		fmt.Printf("Usage: tared %s [OPTION…]\n\n%s.\n\n", c.name, c.summary)
		set.Usage(os.Stdout)
		return nil
	}
	if err == nil && len(operands) > 0 {
		err = fmt.Errorf("unexpected operand %q", operands[0])
	}
	if err != nil {
		return fmt.Errorf("%s: %w (tared %s --help)", c.name, err, c.name)
	}
	return do()
}
