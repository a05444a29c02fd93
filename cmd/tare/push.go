package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/internal/getopt"
)

var pushCommand = command{
	name:     "push",
	args:     "NAME[:TAG]",
	summary:  "Send an image of the local store to its registry",
	operands: "image",
	setup:    setupPush,
	more: `
What the registry has is not sent again, and the tag changes last. Of an index that lists images which the store does not have,
as after tare pull, the one image is pushed that is there; --sparse pushes the index as it is, which not every registry takes.
--platform once pushes that image without the index; several times, the index with these images. What another repository of the
registry has by a name in the store is mounted from there, not uploaded. --referrers sends all that the store has on the image.
`,
}

func setupPush(set *getopt.Set) func([]string) (int, error) {
	var o engine.PushOptions
	var p progress
	var root string
	var quiet, explain, asJSON bool
	set.Func("platform", 0, "OS/ARCH[/VARIANT]", "push the image for this platform; may be repeated", platforms(&o.Platforms))
	set.Bool(&o.Sparse, "sparse", 0, "push an index also if images that it lists are missing")
	set.Bool(&o.Referrers, "referrers", 0, "also what refers to the image: signatures, attestations")
	set.Bool(&o.NonDistributable, "allow-nondistributable-artifacts", 0, "push also layers whose licence forbids handing them on")
	jobsOption(set, &o.Jobs)
	set.Bool(&quiet, "quiet", 'q', "print nothing but the name")
	set.Bool(&explain, "explain", 0, "tell which endpoint is used, and as whom")
	set.Bool(&asJSON, "json", 0, "print what was pushed as JSON")
	progressOption(set, &p)
	rootOption(set, &root)
	return func(args []string) (int, error) {
		if len(args) != 1 {
			return exitTare, errors.New("push: takes one NAME (tare push --help)")
		}
		e, err := openEngine(root)
		if err != nil {
			return 1, err
		}
		o.Warn = warn
		if explain {
			o.Trace = tellTrace
		}
		o.Progress = p.begin(quiet)
		got, err := e.Push(signalContext(), args[0], o)
		p.end()
		if err != nil {
			return 1, err
		}
		switch {
		case asJSON:
			return 0, printJSON(got)
		case quiet:
			fmt.Println(got.Name)
			return 0, nil
		case got.Alone != "":
			fmt.Fprintf(os.Stderr, "tare: only the image for %s was pushed: the store does not have the others that its index lists\n", got.Alone)
		}
		fmt.Printf("%s: digest: %s size: %d\n", engine.Familiar(got.Name), got.Digest, got.Size)
		return 0, nil
	}
}
