package main

import (
	"errors"
	"fmt"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/internal/getopt"
)

var rmCommand = command{
	name:     "rm",
	args:     "NAME|ID…",
	summary:  "Remove containers",
	operands: "container",
	setup: func(set *getopt.Set) func([]string) (int, error) {
		var force bool
		var root string
		set.Bool(&force, "force", 'f', "kill those that run; one that is not there is no error")
		rootOption(set, &root)
		return func(args []string) (int, error) {
			if len(args) == 0 {
				return exitTare, errors.New("rm: NAME or ID is missing (tare rm --help)")
			}
			e, err := openEngine(root)
			if err != nil {
				return 1, err
			}
			var all []error
			for _, ref := range args {
				if err := e.Remove(ref, force); err != nil && !(force && errors.Is(err, engine.ErrNotFound)) {
					all = append(all, err)
					continue
				}
				fmt.Println(ref)
			}
			if err := errors.Join(all...); err != nil {
				return 1, err
			}
			return 0, nil
		}
	},
}
