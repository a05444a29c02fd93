package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/tare-oci/tare/internal/flags"
)

// action does a command's work, after the flags are known. The status is the process's exit status: with an error it is 1 if
// it is 0.
type action func(*env) (status int, err error)

// command is one word of the command line and what may follow it.
type command struct {
	name, args, about string
	min, max          int                     // how many arguments; max -1: any number
	stop              bool                    // flags end at the first argument
	raw               bool                    // there are no flags
	define            func(*flags.Set) action // names the flags
}

// commands are listed in the order of the help text.
func commands() []*command {
	return []*command{
		{"create", "ID", "create a container", 1, 1, false, false, createCommand},
		{"start", "ID", "run the process of a created container", 1, 1, false, false, startCommand},
		{"run", "ID", "create and start a container, and wait for its end", 1, 1, false, false, runCommand},
		{"state", "ID", "print the state of a container as JSON", 1, 1, false, false, stateCommand},
		{"kill", "ID [SIGNAL]", "send a signal (default: TERM) to a container's first process", 1, 2, false, false, killCommand},
		{"delete", "ID", "remove what a stopped container holds", 1, 1, false, false, deleteCommand},
		{"exec", "ID COMMAND [ARG...]", "run another process in a container", 1, -1, true, false, execCommand},
		{"ps", "ID [PS-OPTION...]", "list the processes in a container", 1, -1, true, false, psCommand},
		{"list", "", "list the containers", 0, 0, false, false, listCommand},
		{"pause", "ID", "suspend all processes of a container", 1, 1, false, false, pauseCommand},
		{"resume", "ID", "resume a paused container", 1, 1, false, false, resumeCommand},
		{"update", "ID", "change the resource limits of a container", 1, 1, false, false, updateCommand},
		{"checkpoint", "ID", "write a running container to images, through criu", 1, 1, false, false, checkpointCommand},
		{"restore", "ID", "make a container from the images of a checkpoint", 1, 1, false, false, restoreCommand},
		{"events", "ID", "print statistics and out-of-memory events as JSON lines", 1, 1, false, false, eventsCommand},
		{"spec", "", "write a config.json to begin with", 0, 0, false, false, specCommand},
		{"features", "", "print what the runtime supports as JSON", 0, 0, false, false, featuresCommand},
		{"plan", "BUNDLE", "print the kernel operations that a bundle compiles to", 1, 1, false, false, planCommand},
		{"seccomp", "explain PROFILE CALL [ARCH] [ARG...]", "say what a seccomp profile does with a system call", 3, -1, true, false, seccompCommand},
		{"help", "[COMMAND]", "show help", 0, 1, false, false, nil},
	}
}

// find returns the command called name, or nil.
func find(name string) *command {
	if name == "h" {
		name = "help"
	}
	for _, c := range commands() {
		if c.name == name {
			return c
		}
	}
	if name == "leaks" { // for tests and for people who look into a host
		return &command{name, "[ID...]", "list what containers have left on the host", 0, -1, false, false, leaksCommand}
	}
	return nil
}

// check judges the number of arguments.
func (c *command) check(args []string) error {
	switch n := len(args); {
	case n < c.min && c.name == "seccomp":
		return errors.New("\"seccomp\" requires a minimum of 3 argument(s): the word explain, a profile and a system call")
	case c.min == c.max && n != c.min:
		return fmt.Errorf("%q requires exactly %d argument(s)", c.name, c.min)
	case n < c.min:
		return fmt.Errorf("%q requires a minimum of %d argument(s)", c.name, c.min)
	case c.max >= 0 && n > c.max:
		return fmt.Errorf("%q requires a maximum of %d argument(s)", c.name, c.max)
	}
	return nil
}

// synopsis is the command line of c without its flags.
func (c *command) synopsis() string {
	s := "tare-runtime [GLOBAL FLAGS] COMMAND [FLAGS] [ARG...]"
	if c != nil {
		s = "tare-runtime " + c.name + " [FLAGS]"
		if c.args != "" {
			s += " " + c.args
		}
	}
	return s
}

// help writes all there is to say about c, or about the program for nil.
func help(w io.Writer, c *command, set, global *flags.Set) {
	if c != nil {
		fmt.Fprintf(w, "NAME:\n   tare-runtime %s - %s\n\nUSAGE:\n   %s\n\nOPTIONS:\n", c.name, c.about, c.synopsis())
		set.Usage(w)
		fmt.Fprint(w, "   and the global options\n")
		return
	}
	fmt.Fprintf(w, "NAME:\n   tare-runtime - Open Container Initiative runtime\n\nUSAGE:\n   %s\n\nVERSION:\n   %s\n\nCOMMANDS:\n", c.synopsis(),
		version)
	for _, c := range commands() {
		fmt.Fprintf(w, "   %-10s %s\n", c.name, c.about)
	}
	fmt.Fprint(w, "\nGLOBAL OPTIONS:\n")
	global.Usage(w)
}

func helpCommand(w io.Writer, log *logger, args []string, global *flags.Set) int {
	if len(args) == 0 {
		help(w, nil, nil, global)
		return 0
	}
	c := find(args[0])
	if c == nil {
		return log.noCommand(args[0])
	}
	set := &flags.Set{}
	if c.define != nil {
		c.define(set)
	}
	help(w, c, set, global)
	return 0
}
