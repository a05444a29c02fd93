package main

import (
	"errors"
	"fmt"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/internal/getopt"
)

var mountCommand = command{
	name:     "mount",
	args:     "IMAGE DIR | IMAGE -- COMMAND [ARG…]",
	summary:  "Show the files of an image, on a directory or to one command",
	operands: "image",
	setup:    setupMount,
	first:    true,
	more: `
On DIR everybody sees the files, read-only, until tare umount DIR. After --, only COMMAND sees them (sh if there is none), in its
working directory, which is in the variable TARE_MOUNT too: it can change them, and what it changes is gone when it ends.
`,
}

func setupMount(set *getopt.Set) func([]string) (int, error) {
	var o engine.RunOptions
	var p progress
	var root string
	set.Func("platform", 0, "OS/ARCH[/VARIANT]", "the image for this platform", func(v string) error {
		chosen, err := manifest.ParsePlatform(v)
		o.Platform = &chosen
		return err
	})
	progressOption(set, &p)
	rootOption(set, &root)
	return func(args []string) (int, error) {
		if len(args) == 0 {
			return exitTare, errors.New("mount: IMAGE is missing (tare mount --help)")
		}
		e, err := openEngine(root)
		if err != nil {
			return exitTare, err
		}
		o.Progress, o.Warn, o.Pulled = p.begin(false), warn, p.end
		defer p.end()
		if len(args) >= 2 && args[1] != "--" {
			if len(args) > 2 {
				return exitTare, errors.New("mount: takes IMAGE and DIR, or IMAGE -- COMMAND (tare mount --help)")
			}
			if err := e.Mount(signalContext(), args[0], args[1], o); err != nil {
				return 1, err
			}
			fmt.Println(args[1])
			return 0, nil
		}
		cmd := []string{"sh"}
		if len(args) > 2 {
			cmd = args[2:]
		}
		out, err := e.MountRun(signalContext(), args[0], cmd, o)
		return out.Code, err
	}
}

var umountCommand = command{
	name:    "umount",
	args:    "DIR…",
	summary: "End what tare mount shows on directories",
	setup: func(set *getopt.Set) func([]string) (int, error) {
		var root string
		rootOption(set, &root)
		return func(args []string) (int, error) {
			if len(args) == 0 {
				return exitTare, errors.New("umount: DIR is missing (tare umount --help)")
			}
			e, err := openEngine(root)
			if err != nil {
				return 1, err
			}
			var all []error
			for _, dir := range args {
				all = append(all, e.Unmount(signalContext(), dir))
			}
			return failed(errors.Join(all...))
		}
	},
}
