package main

import (
	"errors"
	"io"
	"os"

	"github.com/tare-oci/tare/image/diff"
	"github.com/tare-oci/tare/internal/getopt"
)

var exportCommand = command{
	name:     "export",
	args:     "CONTAINER",
	summary:  "Write the files of a container to a tar file",
	operands: "container",
	setup: func(set *getopt.Set) func([]string) (int, error) {
		var root, output string
		set.String(&output, "output", 'o', "FILE", "write to this file in place of standard output")
		rootOption(set, &root)
		return func(args []string) (int, error) {
			if len(args) != 1 {
				return exitTare, errors.New("export: takes one CONTAINER (tare export --help)")
			}
			epoch, err := diff.SourceDateEpoch(os.Getenv("SOURCE_DATE_EPOCH"))
			if err != nil {
				return exitTare, err
			}
			e, err := openEngine(root)
			if err != nil {
				return 1, err
			}
			return failed(writeTo(output, func(w io.Writer) error {
				done, err := e.Export(signalContext(), args[0], w, diff.ExportOptions{Clamp: epoch})
				for _, s := range done.Skipped {
					warn(s)
				}
				return err
			}))
		}
	},
}
