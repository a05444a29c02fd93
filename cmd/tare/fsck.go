package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image/store"
	"github.com/tare-oci/tare/internal/getopt"
)

var fsckCommand = command{
	name:    "fsck",
	summary: "Check the local store, and fetch again what is broken",
	setup: func(set *getopt.Set) func([]string) (int, error) {
		var o engine.FsckOptions
		var root string
		var asJSON bool
		set.Bool(&o.Quick, "quick", 0, "compare sizes only")
		set.Bool(&o.Repair, "repair", 0, "fetch what is broken again, from where the image's name says")
		set.Bool(&asJSON, "json", 0, "write JSON")
		rootOption(set, &root)
		return func(args []string) (int, error) {
			if len(args) > 0 {
				return exitTare, errors.New("fsck: takes no arguments")
			}
			e, err := openEngine(root)
			if err != nil {
				return 1, err
			}
			o.Warn = warn
			r, err := e.Fsck(signalContext(), o)
			if err != nil {
				return 1, err
			}
			if asJSON {
				if err := printJSON(problems(r)); err != nil {
					return 1, err
				}
			} else {
				sayProblems(r)
			}
			if !r.OK() {
				return 1, errors.New("the store is damaged")
			}
			return 0, nil
		}
	},
	more: `
Nothing that is good is removed: damaged files are put away, and fetched from the registry that the image's name says. The exit
status is 0 if every image is whole, perhaps after repair.
`,
}

// A problem is a store.Problem as JSON.
type problem struct {
	Kind     string   `json:"kind"`
	Path     string   `json:"path,omitempty"`
	Digest   string   `json:"digest,omitempty"`
	Names    []string `json:"names,omitempty"`
	Detail   string   `json:"detail"`
	Harmless bool     `json:"harmless"`
	Repaired bool     `json:"repaired"`
	Error    string   `json:"error,omitempty"`
}

func problems(r *store.FsckReport) any {
	list := []problem{}
	for _, p := range r.Problems {
		one := problem{p.Kind, p.Path, p.Digest.String(), p.Names, p.Detail, p.Harmless, p.Repaired, ""}
		if p.Err != nil {
			one.Error = p.Err.Error()
		}
		list = append(list, one)
	}
	return struct {
		OK       bool      `json:"ok"`
		Blobs    int       `json:"blobs"`
		Bytes    int64     `json:"bytes"`
		Problems []problem `json:"problems"`
	}{r.OK(), r.Blobs, r.Bytes, list}
}

func sayProblems(r *store.FsckReport) {
	for _, p := range r.Problems {
		line := p.Kind + ": " + printable(p.Detail)
		if p.Path != "" {
			line = p.Kind + ": " + printable(p.Path) + ": " + printable(p.Detail)
		}
		for _, n := range p.Names {
			line += " (needed by " + printable(n) + ")"
		}
		switch {
		case p.Repaired:
			line += ": repaired"
		case p.Err != nil:
			line += ": not repaired: " + p.Err.Error()
		case p.Harmless:
			line += " (harmless)"
		}
		fmt.Println(line)
	}
	fmt.Fprintf(os.Stderr, "%d blobs, %s checked; %d problems\n", r.Blobs, size(r.Bytes), len(r.Problems))
}
