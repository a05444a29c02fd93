package main

import (
	"errors"
	"fmt"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image/diff"
	"github.com/tare-oci/tare/image/mutate"
	"github.com/tare-oci/tare/internal/getopt"
)

var diffCommand = command{
	name:     "diff",
	args:     "CONTAINER | IMAGE IMAGE",
	summary:  "Tell what a container has changed in its files, or why two images differ",
	operands: "container",
	setup: func(set *getopt.Set) func([]string) (int, error) {
		var root string
		var asJSON bool
		set.Bool(&asJSON, "json", 0, "write a JSON array")
		rootOption(set, &root)
		return func(args []string) (int, error) {
			if len(args) < 1 || len(args) > 2 {
				return exitTare, errors.New("diff: takes one CONTAINER or two IMAGEs (tare diff --help)")
			}
			e, err := openEngine(root)
			if err != nil {
				return 1, err
			}
			if len(args) == 1 {
				list, err := e.Diff(signalContext(), args[0])
				if err != nil {
					return 1, err
				}
				return failed(sayChanges(list, asJSON))
			}
			list, err := e.DiffImages(signalContext(), args[0], args[1], engine.Report{Warn: warn})
			if err != nil {
				return 1, err
			}
			if err := sayDifferences(list, asJSON); err != nil {
				return 1, err
			}
			if len(list) > 0 {
				return 1, nil // as diff(1)
			}
			return 0, nil
		}
	},
	more: `
Of a container each line is A (added), C (changed) or D (deleted) and a path. Of two images each line says where they differ and
how: which fields, which layers, and which files in them. The exit status is 1 if they do.
`,
}

func sayChanges(list []diff.Change, asJSON bool) error {
	if !asJSON {
		for _, c := range list {
			fmt.Println(c.Kind, printable(c.Path))
		}
		return nil
	}
	type change struct {
		Kind string `json:"kind"`
		Path string `json:"path"`
	}
	out := []change{}
	for _, c := range list {
		out = append(out, change{c.Kind.String(), c.Path})
	}
	return printJSON(out)
}

func sayDifferences(list []mutate.Difference, asJSON bool) error {
	if !asJSON {
		for _, d := range list {
			line := d.Where + ": " + d.What
			if d.A != "" || d.B != "" {
				line += ": " + orNone(d.A) + " → " + orNone(d.B)
			}
			fmt.Println(printable(line))
		}
		return nil
	}
	type difference struct {
		Where string `json:"where"`
		What  string `json:"what"`
		A     string `json:"a,omitempty"`
		B     string `json:"b,omitempty"`
	}
	out := []difference{}
	for _, d := range list {
		out = append(out, difference(d))
	}
	return printJSON(out)
}
