package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/internal/getopt"
	"github.com/tare-oci/tare/internal/sys/pty"
)

var pruneCommand = command{
	name:    "prune",
	summary: "Remove images that nobody needs, and what pulls that were broken off have left",
	setup:   setupPrune,
	more: `
Images without a name are removed, and everything that no image and no container needs. With --all, images with names are
removed, too, that no container was made from. --dry-run tells what would go, in exact bytes.
`,
}

func setupPrune(set *getopt.Set) func([]string) (int, error) {
	var o engine.PruneImagesOptions
	var force, asJSON bool
	var root string
	set.Bool(&o.All, "all", 'a', "images with names, too, that no container was made from")
	set.Bool(&o.DryRun, "dry-run", 'n', "remove nothing, and tell what would go")
	set.Bool(&force, "force", 'f', "do not ask")
	set.Func("filter", 0, "until=DURATION", "with --all: only images that were not used for so long, such as 24h", func(v string) (err error) {
		text, ok := strings.CutPrefix(v, "until=")
		if o.Unused, err = time.ParseDuration(text); !ok || err != nil || o.Unused < 0 {
			return fmt.Errorf("%q: want until=DURATION, such as until=24h", v)
		}
		return nil
	})
	set.Bool(&asJSON, "json", 0, "write what was removed as JSON; does not ask")
	rootOption(set, &root)
	return func(args []string) (int, error) {
		if len(args) > 0 {
			return exitTare, errors.New("prune: takes no arguments")
		}
		if !o.DryRun && !force && !asJSON && pty.IsTerminal(os.Stdin) && !sure(o.All) {
			return 0, nil
		}
		e, err := openEngine(root)
		if err != nil {
			return 1, err
		}
		r, err := e.PruneImages(signalContext(), o)
		if err != nil {
			return 1, err
		}
		if asJSON {
			return failed(printJSON(r))
		}
		sayRemoved(r)
		for _, d := range r.Layers {
			fmt.Println("Unpacked layer:", d)
		}
		text := "Total reclaimed space"
		if o.DryRun {
			text = "Space that would be reclaimed"
		}
		fmt.Printf("%s: %s (%d bytes)\n", text, size(r.Bytes), r.Bytes)
		return 0, nil
	}
}

// sure asks whether to go on.
func sure(all bool) bool {
	what := "images without a name and what nothing needs"
	if all {
		what = "all images that no container was made from"
	}
	fmt.Printf("This removes %s. Continue? [y/N] ", what)
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	return err == nil && (strings.HasPrefix(line, "y") || strings.HasPrefix(line, "Y"))
}
