package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/tare-oci/tare/internal/flags"
	"github.com/tare-oci/tare/internal/sys/kernel"
)

// logger writes lines in the form in which runc's callers read them: with --log to that file, and errors bare to stderr too,
// because some callers read the one and some the other. Warnings do not go there: of create it is the container's own stderr.
type logger struct {
	stderr io.Writer
	file   io.Writer // nil: lines go to stderr
	json   bool
}

// open applies the global flags. The file is created if need be, so that a caller always finds it.
func (l *logger) open(g *globals) error {
	switch g.logFormat {
	case "text", "":
	case "json":
		l.json = true
	default:
		return fmt.Errorf("invalid log-format: %s", g.logFormat)
	}
	if g.log == "" {
		return nil
	}
	f, err := os.OpenFile(g.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	l.file = f
	return nil
}

// line is one line of the JSON format.
type line struct {
	Level string `json:"level"`
	Msg   string `json:"msg"`
	Time  string `json:"time"`
}

func (l *logger) print(level, msg string) {
	if l.file == nil {
		l.write(l.stderr, level, msg)
		return
	}
	l.write(l.file, level, msg)
	if level == "error" {
		fmt.Fprintln(l.stderr, msg)
	}
}

// write writes one line with one call, so that the lines of several processes do not mix.
func (l *logger) write(w io.Writer, level, msg string) {
	now := time.Now().UTC().Format(time.RFC3339)
	if l.json {
		data, err := json.Marshal(line{level, msg, now})
		if err != nil {
			return // strings alone: cannot happen
		}
		w.Write(append(data, '\n'))
		return
	}
	fmt.Fprintf(w, "time=%s level=%s msg=%s\n", strconv.Quote(now), level, strconv.Quote(msg))
}

// fail reports the error of command c, if any, and returns the exit status.
func (l *logger) fail(c *command, status int, err error) int {
	if err == nil {
		return status
	}
	msg := err.Error()
	if errors.Is(err, syscall.ENOSYS) {
		msg += kernel.Hint()
	}
	if c.name == "exec" {
		msg = "exec failed: " + msg
	}
	l.print("error", msg)
	if status == 0 {
		return 1
	}
	return status
}

// wrongUsage reports a command line that is wrong, for c or for the program for nil, and returns the exit status: the help goes to
// standard output, the reason is an error like any other.
func (l *logger) wrongUsage(stdout io.Writer, c *command, set, global *flags.Set, err error) int {
	fmt.Fprint(stdout, "Incorrect Usage.\n\n")
	help(stdout, c, set, global)
	l.print("error", err.Error())
	return 1
}

// unknownCommand is the exit status for a command that does not exist.
const unknownCommand = 3

// noCommand reports that there is no command called name.
func (l *logger) noCommand(name string) int {
	l.print("error", fmt.Sprintf("No help topic for '%s'", name))
	return unknownCommand
}
