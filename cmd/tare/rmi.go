package main

import (
	"errors"
	"fmt"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/internal/getopt"
)

var rmiCommand = command{
	name:     "rmi",
	args:     "IMAGE…",
	summary:  "Remove images from the local store",
	operands: "image",
	setup:    setupRmi,
	more: `
A name is taken away from its image; an image without names is removed, and with it what nothing else holds. Of an image that a
container was made from the last name stays, unless it is forced; what the container needs stays in any case.
`,
}

func setupRmi(set *getopt.Set) func([]string) (int, error) {
	var force, asJSON bool
	var root string
	set.Bool(&force, "force", 'f', "remove all names of an ID, and the last name of an image that is in use; no error if it is not there")
	set.Bool(&asJSON, "json", 0, "write a JSON array")
	rootOption(set, &root)
	return func(args []string) (int, error) {
		if len(args) == 0 {
			return exitTare, errors.New("rmi: IMAGE is missing (tare rmi --help)")
		}
		e, err := openEngine(root)
		if err != nil {
			return 1, err
		}
		var all []error
		done := []*engine.Removal{}
		for _, ref := range args {
			r, err := e.RemoveImage(signalContext(), ref, force)
			if err != nil {
				if !force || !errors.Is(err, content.ErrNotFound) {
					all = append(all, err)
				}
				continue
			}
			done = append(done, r)
			if !asJSON {
				sayRemoved(r)
			}
		}
		if asJSON {
			all = append(all, printJSON(done))
		}
		return failed(errors.Join(all...))
	}
}

func sayRemoved(r *engine.Removal) {
	for _, name := range r.Untagged {
		fmt.Println("Untagged:", engine.Familiar(name))
	}
	for _, d := range r.Deleted {
		fmt.Println("Deleted:", d)
	}
}
