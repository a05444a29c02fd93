package main

import (
	"errors"
	"fmt"

	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/internal/getopt"
)

var convertCommand = command{
	name:     "convert",
	args:     "IMAGE NAME[:TAG]",
	summary:  "Make an image with the same files in layers of another compression",
	operands: "image",
	setup: func(set *getopt.Set) func([]string) (int, error) {
		var root string
		to := layer.Zstd
		set.Func("compression", 0, "KIND", "zstd (the default), gzip or none", func(v string) error { return parseCompression(v, &to) })
		rootOption(set, &root)
		return func(args []string) (int, error) {
			if len(args) != 2 {
				return exitTare, errors.New("convert: takes an IMAGE and a NAME (tare convert --help)")
			}
			e, err := openEngine(root)
			if err != nil {
				return 1, err
			}
			d, _, err := e.Convert(signalContext(), args[0], args[1], to)
			if err != nil {
				return 1, err
			}
			fmt.Println(d)
			return 0, nil
		}
	},
	more: `
The configuration, and so the image's ID and its unpacked layers, stay the same; the digest is a new one.
`,
}
