package main

import (
	"errors"

	"github.com/tare-oci/tare/internal/getopt"
)

var tagCommand = command{
	name:     "tag",
	args:     "IMAGE NAME[:TAG]",
	summary:  "Give an image another name",
	operands: "image",
	setup: func(set *getopt.Set) func([]string) (int, error) {
		var root string
		rootOption(set, &root)
		return func(args []string) (int, error) {
			if len(args) != 2 {
				return exitTare, errors.New("tag: takes an IMAGE and a NAME (tare tag --help)")
			}
			e, err := openEngine(root)
			if err != nil {
				return 1, err
			}
			return failed(e.Tag(signalContext(), args[0], args[1]))
		}
	},
}

// failed returns the exit status for an error, or for none.
func failed(err error) (int, error) {
	if err != nil {
		return 1, err
	}
	return 0, nil
}
