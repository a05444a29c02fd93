// Command tare runs containers and moves images: the command that people type. Each subcommand has a file
// of its own that turns words into calls of package engine and back.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

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
	// operands is what completion offers: image, container; empty: files.
	operands string
	// first says that options end at the first operand: the rest is for the container.
	first  bool
	hidden bool
	sub    []command // of a group
	// setup adds the options and returns what runs the command with its operands and returns the exit status.
	setup func(*getopt.Set) func(args []string) (int, error)
}

func commands() []command {
	return []command{
		runCommand, psCommand, rmCommand,
		pullCommand, pushCommand, copyCommand, saveCommand, loadCommand,
		imagesCommand, inspectCommand, historyCommand, tagCommand, rmiCommand, pruneCommand, whyCommand, fsckCommand,
		commitCommand, exportCommand, importCommand, convertCommand, diffCommand,
		mountCommand, umountCommand, loginCommand, logoutCommand, searchCommand,
		imageCommand(), completionCommand, completeCommand(), versionCommand,
	}
}

func main() {
	code, err := dispatch(os.Args[1:])
	var told *engine.RuntimeError
	if err != nil && !(errors.As(err, &told) && told.Told) {
		fmt.Fprintln(os.Stderr, "tare: "+err.Error())
		if hint := engine.LimitHint(err); hint != "" {
			fmt.Fprintln(os.Stderr, "hint: "+hint)
		}
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
	return choose(commands(), "tare", args)
}

// choose runs the command that args names. prefix is what was typed before.
func choose(list []command, prefix string, args []string) (int, error) {
	for _, c := range list {
		if c.name != args[0] {
			continue
		}
		if c.sub == nil {
			return c.run(prefix, args[1:])
		}
		if len(args) == 1 || args[1] == "--help" || args[1] == "help" {
			c.list(os.Stdout, prefix)
			return 0, nil
		}
		return choose(c.sub, prefix+" "+c.name, args[1:])
	}
	return exitTare, fmt.Errorf("unknown command %q (%s --help lists them)", args[0], prefix)
}

// list writes what a group has.
func (c command) list(w io.Writer, prefix string) {
	fmt.Fprintf(w, "Usage: %s %s COMMAND [OPTION…] [ARG…]\n\n%s.\n\n", prefix, c.name, c.summary)
	for _, s := range c.sub {
		fmt.Fprintf(w, "  %-10s %s\n", s.name, s.summary)
	}
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Usage: tare COMMAND [OPTION…] [ARG…]\n\nRun containers and move images, without a daemon.\n\n")
	for _, c := range commands() {
		if !c.hidden {
			fmt.Fprintf(w, "  %-10s %s\n", c.name, c.summary)
		}
	}
	fmt.Fprint(w, "\ntare COMMAND --help tells more about one.\n")
}

func (c command) run(prefix string, args []string) (int, error) {
	var set getopt.Set
	do := c.setup(&set)
	parse := set.ParseMixed
	if c.first {
		parse = set.Parse
	}
	operands, err := parse(args)
	if errors.Is(err, getopt.ErrHelp) {
		fmt.Printf("Usage: %s %s [OPTION…] %s\n\n%s.\n\n", prefix, c.name, c.args, c.summary)
		set.Usage(os.Stdout)
		fmt.Print(c.more)
		return 0, nil
	}
	if err != nil {
		return exitTare, fmt.Errorf("%s: %w (%s %s --help)", c.name, err, prefix, c.name)
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

// signalContext returns a context that ends when the user wants the command to end.
func signalContext() context.Context {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	return ctx
}
