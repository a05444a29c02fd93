package main

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/tare-oci/tare/internal/flags"
)

func psCommand(s *flags.Set) action {
	format := "table"
	s.String(&format, "format,f", "table|json", "how to print (default: table)")
	return func(e *env) (int, error) {
		if format != "table" && format != "json" {
			return 0, errFormat
		}
		pids, err := e.runtime.Ps(e.args[0])
		if err != nil {
			return 0, err
		}
		if format == "json" {
			if len(pids) == 0 {
				pids = nil // null, as runc prints it
			}
			return 0, printJSON(e.stdout, pids, "")
		}
		options := e.args[1:]
		if len(options) == 0 {
			options = []string{"-ef"}
		}
		out, err := exec.Command("ps", options...).Output()
		if err != nil {
			var exit *exec.ExitError
			if errors.As(err, &exit) && len(exit.Stderr) > 0 {
				err = errors.New(strings.TrimSpace(string(exit.Stderr)))
			}
			return 0, fmt.Errorf("run ps %s: %w", strings.Join(options, " "), err)
		}
		table, err := filter(string(out), pids)
		if err == nil {
			_, err = e.stdout.WriteString(table)
		}
		return 0, err
	}
}

// filter leaves the heading and the lines of pids in what ps printed.
func filter(table string, pids []int) (string, error) {
	heading, rest, _ := strings.Cut(table, "\n")
	column := slices.Index(strings.Fields(heading), "PID")
	if column < 0 {
		return "", errors.New("find column PID in the output of ps: not there; give options that print it")
	}
	out := heading + "\n"
	for line := range strings.Lines(rest) {
		f := strings.Fields(line)
		if column >= len(f) {
			continue
		}
		if pid, err := strconv.Atoi(f[column]); err == nil && slices.Contains(pids, pid) {
			out += line
		}
	}
	return out, nil
}
