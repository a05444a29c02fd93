// Command tare runs containers from images in files and directories: the command that people type. Each subcommand has a file
// of its own that turns words into calls of package engine and back.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/internal/getopt"
)

// version is what the next release will be called.
const version = "0.1.0-dev"

// exitTare is docker's exit status for an error of its own, which no process in a container caused.
const exitTare = 125

// A command is one subcommand.
type command struct {
	name    string
	args    string // what follows the options in the usage line
	summary string
	more    string // what the help says after the options
	// setup adds the options and returns what runs the command with its operands and returns the exit status.
	setup func(*getopt.Set) func(args []string) (int, error)
}

func commands() []command {
	return []command{runCommand, psCommand, rmCommand, versionCommand}
}

func main() {
	code, err := dispatch(os.Args[1:])
	var told *engine.RuntimeError
	if err != nil && !(errors.As(err, &told) && told.Told) {
		fmt.Fprintln(os.Stderr, "tare: "+err.Error())
	}
	os.Exit(code)
}

func dispatch(args []string) (int, error) {
	if len(args) == 0 {
		usage(os.Stderr)
		return exitTare, nil
	}
	switch args[0] {
	case "help", "--help", "-h":
		if len(args) > 1 {
			args = []string{args[1], "--help"}
			break
		}
		usage(os.Stdout)
		return 0, nil
	case "--version", "-v":
		args = []string{"version"}
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(args[1:])
		}
	}
	return exitTare, fmt.Errorf("unknown command %q (tare --help lists them)", args[0])
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Usage: tare COMMAND [OPTION…] [ARG…]\n\nRun containers from image files, without a daemon.\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-8s %s\n", c.name, c.summary)
	}
	fmt.Fprint(w, "\ntare COMMAND --help tells more about one.\n")
}

func (c command) run(args []string) (int, error) {
	var set getopt.Set
	do := c.setup(&set)
	operands, err := set.Parse(args)
	if errors.Is(err, getopt.ErrHelp) {
		fmt.Printf("Usage: tare %s [OPTION…] %s\n\n%s.\n\n", c.name, c.args, c.summary)
		set.Usage(os.Stdout)
		fmt.Print(c.more)
		return 0, nil
	}
	if err != nil {
		return exitTare, fmt.Errorf("%s: %w (tare %s --help)", c.name, err, c.name)
	}
	return do(operands)
}

// openEngine opens the engine and cleans up after commands that were killed; what cannot be cleaned up is only said.
func openEngine(root string) (*engine.Engine, error) {
	if root == "" {
		var err error
		if root, err = engine.DefaultRoot(); err != nil {
			return nil, err
		}
	}
	e, err := engine.Open(root)
	if err != nil {
		return nil, err
	}
	if err := e.Sweep(); err != nil {
		fmt.Fprintln(os.Stderr, "tare: warning: "+err.Error())
	}
	return e, nil
}

func rootOption(set *getopt.Set, root *string) {
	set.String(root, "root", 0, "DIR", "where containers and layers are kept (/var/lib/tare; for users ~/.local/share/tare)")
}
