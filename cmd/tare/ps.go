package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/internal/getopt"
)

var psCommand = command{
	name:    "ps",
	summary: "List containers",
	setup: func(set *getopt.Set) func([]string) (int, error) {
		var all, asJSON bool
		var root string
		set.Bool(&all, "all", 'a', "list those that have ended too")
		set.Bool(&asJSON, "json", 0, "write a JSON array")
		rootOption(set, &root)
		return func(args []string) (int, error) {
			if len(args) > 0 {
				return exitTare, errors.New("ps: takes no arguments")
			}
			e, err := openEngine(root)
			if err != nil {
				return 1, err
			}
			list, err := e.List()
			if err != nil {
				return 1, err
			}
			shown := []engine.Status{}
			for _, s := range list {
				if all || s.State == "running" {
					shown = append(shown, s)
				}
			}
			if asJSON {
				out := json.NewEncoder(os.Stdout)
				out.SetIndent("", "  ")
				return 0, out.Encode(shown)
			}
			return 0, table(os.Stdout, shown, time.Now())
		}
	},
}

func table(w io.Writer, list []engine.Status, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	fmt.Fprintln(t, "CONTAINER ID\tNAME\tIMAGE\tCOMMAND\tCREATED\tSTATUS")
	for _, s := range list {
		fmt.Fprintf(t, "%.12s\t%s\t%s\t%s\t%s ago\t%s\n", s.ID, s.Name, s.Image, short(strings.Join(s.Args, " ")),
			age(now.Sub(s.Created)), status(s, now))
	}
	return t.Flush()
}

func status(s engine.Status, now time.Time) string {
	if s.State == "running" {
		return "running"
	}
	text := s.State
	if s.ExitCode != nil {
		text += " (" + strconv.Itoa(*s.ExitCode) + ")"
	}
	if s.Finished != nil {
		text += " " + age(now.Sub(*s.Finished)) + " ago"
	}
	return text
}

// short makes of a command line what fits in a table, and nothing that a terminal acts on.
func short(s string) string {
	s = strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 30 {
		return string(r[:29]) + "…"
	}
	return s
}

func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
