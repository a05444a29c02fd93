package main

import (
	"errors"
	"fmt"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/internal/getopt"
)

var copyCommand = command{
	name:    "copy",
	args:    "FROM TO",
	summary: "Copy an image from any place to any other, without changing a byte",
	setup:   setupCopy,
	more: `
FROM and TO are docker://NAME (a registry), store:NAME (the local store), oci:DIR[:REF], oci-archive:FILE[:REF],
docker-archive:FILE[:REF] or dir:DIR. Everything that belongs to FROM is copied: all platforms of an index. --platform copies
only the images for some, while the index keeps its bytes and so its digest; where a registry does not take such a sparse index,
--no-index copies one image without it.
`,
}

func setupCopy(set *getopt.Set) func([]string) (int, error) {
	var o engine.CopyOptions
	var p progress
	var root string
	var quiet, explain, asJSON, all bool
	set.Bool(&all, "all", 'a', "for skopeo's habit: all platforms are copied anyway")
	set.Func("platform", 0, "OS/ARCH[/VARIANT]", "of an index only the image for this platform; may be repeated", platforms(&o.Platforms))
	set.Bool(&o.NoIndex, "no-index", 0, "copy one image, for --platform or this machine, without the index that lists it")
	set.Bool(&o.Sparse, "sparse", 0, "leave out what an index lists and FROM does not have")
	set.Bool(&o.Referrers, "referrers", 0, "also what refers to the image: signatures, attestations")
	set.Bool(&o.NonDistributable, "allow-nondistributable-artifacts", 0, "to registries also layers whose licence forbids handing them on")
	jobsOption(set, &o.Jobs)
	set.Bool(&quiet, "quiet", 'q', "print nothing but the digest")
	set.Bool(&explain, "explain", 0, "tell which endpoints are asked, as whom, and why the next one")
	set.Bool(&asJSON, "json", 0, "print what was copied as JSON")
	progressOption(set, &p)
	rootOption(set, &root)
	return func(args []string) (int, error) {
		if len(args) != 2 {
			return exitTare, errors.New("copy: takes FROM and TO (tare copy --help)")
		}
		if o.NoIndex && len(o.Platforms) > 1 {
			return exitTare, errors.New("copy: --no-index copies one image: give one --platform")
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
		got, err := e.Copy(signalContext(), args[0], args[1], o)
		p.end()
		if err != nil {
			return 1, err
		}
		if asJSON {
			return failed(printJSON(got))
		}
		fmt.Println(got.Digest)
		return 0, nil
	}
}
