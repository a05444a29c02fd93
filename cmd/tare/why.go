package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tare-oci/tare/image/store"
	"github.com/tare-oci/tare/internal/getopt"
)

var whyCommand = command{
	name:     "why",
	args:     "DIGEST|IMAGE",
	summary:  "Tell what holds a blob, an image or an unpacked layer in the local store",
	operands: "image",
	setup: func(set *getopt.Set) func([]string) (int, error) {
		var root string
		var asJSON bool
		set.Bool(&asJSON, "json", 0, "write a JSON array of paths")
		rootOption(set, &root)
		return func(args []string) (int, error) {
			if len(args) != 1 {
				return exitTare, errors.New("why: takes one DIGEST (tare why --help)")
			}
			e, err := openEngine(root)
			if err != nil {
				return 1, err
			}
			d, paths, err := e.Why(signalContext(), args[0])
			if err != nil {
				return 1, err
			}
			if asJSON {
				if paths == nil {
					paths = [][]store.Step{}
				}
				return failed(printJSON(paths))
			}
			if len(paths) == 0 {
				return 1, fmt.Errorf("nothing holds %s: it is garbage, or not there", d)
			}
			for _, p := range paths {
				fmt.Println(wayOf(p))
			}
			return 0, nil
		}
	},
	more: `
Each line is a way from what holds it: a name, a container or another lease, over indexes and manifests.
`,
}

// wayOf writes a way in one line.
func wayOf(steps []store.Step) string {
	var words []string
	for _, s := range steps {
		w := s.Kind
		if s.Name != "" {
			w += " " + printable(s.Name)
		}
		if s.Digest != "" {
			w += " " + string(s.Digest)
		}
		words = append(words, w)
	}
	return strings.Join(words, " → ")
}
