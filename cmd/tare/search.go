package main

import (
	"errors"
	"fmt"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/internal/getopt"
)

var searchCommand = command{
	name:    "search",
	args:    "REPOSITORY",
	summary: "List the tags that a repository has in its registry",
	setup:   setupTags,
}

var tagsCommand = command{
	name:    "tags",
	args:    "REPOSITORY",
	summary: searchCommand.summary,
	setup:   setupTags,
}

// errEnough says that no more tags are wanted.
var errEnough = errors.New("enough")

func setupTags(set *getopt.Set) func([]string) (int, error) {
	var root string
	var asJSON, explain bool
	limit := 0
	set.Bool(&asJSON, "json", 0, "write a JSON array")
	set.Bool(&explain, "explain", 0, "tell which endpoints are asked, and as whom")
	set.Func("limit", 0, "N", "list at most so many", func(v string) error {
		if _, err := fmt.Sscanf(v, "%d", &limit); err != nil || limit < 1 {
			return fmt.Errorf("%q is no number above 0", v)
		}
		return nil
	})
	rootOption(set, &root)
	return func(args []string) (int, error) {
		if len(args) != 1 {
			return exitTare, errors.New("search: takes one REPOSITORY (tare search --help)")
		}
		e, err := openEngine(root)
		if err != nil {
			return 1, err
		}
		r := engine.Report{Warn: warn}
		if explain {
			r.Trace = tellTrace
		}
		tags := []string{}
		n := 0
		err = e.Tags(signalContext(), args[0], r, func(tag string) error {
			if n++; limit > 0 && n > limit {
				return errEnough
			}
			if asJSON {
				tags = append(tags, tag)
				return nil
			}
			_, err := fmt.Println(tag)
			return err
		})
		if err != nil && !errors.Is(err, errEnough) {
			return 1, err
		}
		if asJSON {
			return failed(printJSON(tags))
		}
		return 0, nil
	}
}
