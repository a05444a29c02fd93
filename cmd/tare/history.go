package main

import (
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/internal/getopt"
)

var historyCommand = command{
	name:     "history",
	args:     "IMAGE",
	summary:  "Tell how an image was made, layer by layer",
	operands: "image",
	setup: func(set *getopt.Set) func([]string) (int, error) {
		var root string
		var full, quiet, asJSON bool
		p := manifest.Host()
		platformOption(set, &p)
		set.Bool(&full, "no-trunc", 0, "whole commands and digests")
		set.Bool(&quiet, "quiet", 'q', "digests of layers only")
		set.Bool(&asJSON, "json", 0, "write a JSON array")
		noFormat(set)
		rootOption(set, &root)
		return func(args []string) (int, error) {
			if len(args) != 1 {
				return exitTare, errors.New("history: takes one IMAGE (tare history --help)")
			}
			e, err := openEngine(root)
			if err != nil {
				return 1, err
			}
			steps, err := e.History(signalContext(), args[0], p, engine.Report{Warn: warn})
			if err != nil {
				return 1, err
			}
			if asJSON {
				return failed(printJSON(steps))
			}
			return failed(sayHistory(steps, full, quiet))
		}
	},
}

func sayHistory(steps []engine.HistoryStep, full, quiet bool) error {
	t := tabwriter.NewWriter(os.Stdout, 0, 8, 3, ' ', 0)
	if !quiet {
		fmt.Fprintln(t, "LAYER\tCREATED\tCREATED BY\tSIZE\tCOMMENT")
	}
	for _, s := range steps {
		id, by, created := "-", printable(s.CreatedBy), "-"
		if s.Layer != "" {
			id = string(s.Layer)
		}
		if !full {
			by = short(s.CreatedBy)
			if s.Layer != "" {
				id = shortDigest(s.Layer)
			}
		}
		if quiet {
			fmt.Fprintln(t, id)
			continue
		}
		if s.Created != nil {
			created = age(time.Since(*s.Created)) + " ago"
		}
		fmt.Fprintln(t, id+"\t"+created+"\t"+by+"\t"+size(s.Size)+"\t"+printable(s.Comment))
	}
	return t.Flush()
}
