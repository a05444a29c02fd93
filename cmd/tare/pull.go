package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/internal/getopt"
)

var pullCommand = command{
	name:    "pull",
	args:    "NAME[:TAG|@DIGEST]…",
	summary: "Bring images from registries into the local store",
	setup:   setupPull,
	more: `
What an index lists for other platforms stays in the registry, while the index itself is kept as it is, byte for byte. Layers
are unpacked while they are downloaded. A pull that was interrupted is continued by the next one. With --explain, every
endpoint (mirrors, then the registry) that is asked is told on standard error, with the name of the credential that it got and
why the next one was asked.
`,
}

func setupPull(set *getopt.Set) func([]string) (int, error) {
	var o engine.PullOptions
	var p progress
	var root string
	var quiet, explain, asJSON bool
	set.Bool(&o.All, "all-platforms", 0, "images for all platforms; only that for this machine is unpacked")
	set.Func("platform", 0, "OS/ARCH[/VARIANT]", "image for this platform in place of this machine's; may be repeated", platforms(&o.Platforms))
	set.Bool(&o.NoUnpack, "no-unpack", 0, "only store the image; layers are unpacked when it is run")
	set.Bool(&o.Referrers, "referrers", 0, "also what refers to the image: signatures, attestations")
	jobsOption(set, &o.Jobs)
	set.Bool(&quiet, "quiet", 'q', "print nothing but the name")
	set.Bool(&explain, "explain", 0, "tell which endpoints are asked, as whom, and why the next one")
	set.Bool(&asJSON, "json", 0, "print what was pulled as JSON")
	progressOption(set, &p)
	rootOption(set, &root)
	return func(args []string) (int, error) {
		if len(args) == 0 {
			return exitTare, errors.New("pull: NAME is missing (tare pull --help)")
		}
		e, err := openEngine(root)
		if err != nil {
			return 1, err
		}
		o.Warn = warn
		if explain {
			o.Trace = tellTrace
		}
		done := []*engine.Pulled{}
		for _, name := range args {
			o.Progress = p.begin(quiet)
			got, err := e.Pull(signalContext(), name, o)
			p.end()
			if err != nil {
				return 1, err
			}
			done = append(done, got)
			if !asJSON {
				sayPulled(got, quiet)
			}
		}
		if asJSON {
			return 0, printJSON(done)
		}
		return 0, nil
	}
}

// sayPulled says what docker pull says.
func sayPulled(got *engine.Pulled, quiet bool) {
	if !quiet {
		status := "Image is up to date for"
		if got.Changed {
			status = "Downloaded newer image for"
		}
		fmt.Printf("Digest: %s\nStatus: %s %s\n", got.Digest, status, engine.Familiar(got.Name))
	}
	fmt.Println(got.Name)
}

// platforms returns what adds to a list of platforms.
func platforms(list *[]manifest.Platform) func(string) error {
	return func(s string) error {
		p, err := manifest.ParsePlatform(s)
		*list = append(*list, p)
		return err
	}
}

func jobsOption(set *getopt.Set, n *int) {
	set.Func("jobs", 'j', "N", "blobs to move side by side (6)", func(v string) (err error) {
		if *n, err = strconv.Atoi(v); err != nil || *n < 1 || *n > 64 {
			return fmt.Errorf("%q is no number from 1 to 64", v)
		}
		return nil
	})
}

// warn tells what a registry wants people to know.
func warn(text string) { fmt.Fprintln(os.Stderr, "tare: warning: "+text) }

// tellTrace writes a step of a way on standard error.
func tellTrace(t engine.Trace) {
	line := t.Endpoint + ": " + t.Step
	if t.Detail != "" {
		line += ": " + t.Detail
	}
	if t.Error != "" {
		line += ": " + t.Error
	}
	fmt.Fprintln(os.Stderr, line)
}
