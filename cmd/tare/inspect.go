package main

import (
	"errors"
	"os"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/internal/getopt"
)

var inspectCommand = command{
	name:     "inspect",
	args:     "IMAGE…",
	summary:  "Tell everything about images, as JSON",
	operands: "image",
	setup:    setupInspect,
	more: `
IMAGE is a name or ID in the local store, or a place as in tare copy: docker://NAME asks the registry. --raw writes the manifest
or index byte for byte, --config the configuration.
`,
}

func setupInspect(set *getopt.Set) func([]string) (int, error) {
	var root string
	var raw, config, explain, ignored bool
	p := manifest.Host()
	platformOption(set, &p)
	set.Bool(&raw, "raw", 0, "write what the name stands for, an index or a manifest, as it is")
	set.Bool(&config, "config", 0, "write the configuration as it is")
	set.Bool(&explain, "explain", 0, "tell which endpoints are asked, as whom, and why the next one")
	set.Bool(&ignored, "json", 0, "for habit: it is JSON anyway")
	set.Func("type", 0, "TYPE", "for docker's habit: only image is known", func(v string) error {
		if v != "image" {
			return errors.New("only images can be inspected; tare ps --json tells about containers")
		}
		return nil
	})
	noFormat(set)
	rootOption(set, &root)
	return func(args []string) (int, error) {
		if len(args) == 0 || (raw || config) && len(args) > 1 {
			return exitTare, errors.New("inspect: takes IMAGEs, with --raw or --config one (tare inspect --help)")
		}
		e, err := openEngine(root)
		if err != nil {
			return 1, err
		}
		r := engine.Report{Warn: warn}
		if explain {
			r.Trace = tellTrace
		}
		if raw || config {
			what := engine.RawDocument
			if config {
				what = engine.RawConfig
			}
			data, err := e.InspectRaw(signalContext(), args[0], what, p, r)
			if err != nil {
				return 1, err
			}
			_, err = os.Stdout.Write(data)
			return failed(err)
		}
		list := []*engine.Inspection{}
		var all []error
		for _, ref := range args {
			i, err := e.Inspect(signalContext(), ref, p, r)
			if err != nil {
				all = append(all, err)
				continue
			}
			list = append(list, i)
		}
		return failed(errors.Join(append(all, printJSON(list))...))
	}
}

func platformOption(set *getopt.Set, p *manifest.Platform) {
	set.Func("platform", 0, "OS/ARCH[/VARIANT]", "the image for this platform in place of this machine's", func(v string) (err error) {
		*p, err = manifest.ParsePlatform(v)
		return err
	})
}
