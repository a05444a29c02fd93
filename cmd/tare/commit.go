package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tare-oci/tare/image/diff"
	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/mutate"
	"github.com/tare-oci/tare/internal/getopt"
)

var commitCommand = command{
	name:     "commit",
	args:     "CONTAINER [NAME[:TAG]]",
	summary:  "Make an image of what a container has changed",
	operands: "container",
	setup:    setupCommit,
	more: `
The image has the layers of the container's image and a new one. A container that runs goes on meanwhile. With
SOURCE_DATE_EPOCH in the environment the same changes give the same bytes.
`,
}

func setupCommit(set *getopt.Set) func([]string) (int, error) {
	var o mutate.Options
	var root string
	makeOptions(set, &o)
	compressionOption(set, &o.Compression)
	rootOption(set, &root)
	return func(args []string) (int, error) {
		if len(args) < 1 || len(args) > 2 {
			return exitTare, errors.New("commit: takes a CONTAINER and a NAME (tare commit --help)")
		}
		if err := dateOf(&o); err != nil {
			return exitTare, err
		}
		e, err := openEngine(root)
		if err != nil {
			return 1, err
		}
		_, id, err := e.Commit(signalContext(), args[0], second(args), o)
		if err != nil {
			return 1, err
		}
		fmt.Println(id)
		return 0, nil
	}
}

func second(args []string) string {
	if len(args) < 2 {
		return ""
	}
	return args[1]
}

// makeOptions adds what commit and import have in common.
func makeOptions(set *getopt.Set, o *mutate.Options) {
	set.String(&o.Author, "author", 'a', "TEXT", "who made the image")
	set.String(&o.Message, "message", 'm', "TEXT", "comment for the history")
	set.Strings(&o.Changes, "change", 'c', "INSTRUCTION", "change the configuration as a Dockerfile does: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, …; may be repeated")
}

func compressionOption(set *getopt.Set, to *layer.Compression) {
	set.Func("compression", 0, "KIND", "of new layers: gzip (the default), zstd or none", func(v string) error {
		return parseCompression(v, to)
	})
}

func parseCompression(v string, to *layer.Compression) error {
	switch c := layer.Compression(v); c {
	case layer.Gzip, layer.Zstd, layer.Plain:
		*to = c
		return nil
	}
	return fmt.Errorf("%q is none of gzip, zstd, none", v)
}

// dateOf takes the time from SOURCE_DATE_EPOCH, or else from the clock.
func dateOf(o *mutate.Options) error {
	epoch, err := diff.SourceDateEpoch(os.Getenv("SOURCE_DATE_EPOCH"))
	if err != nil {
		return err
	}
	if o.Created, o.Clamp = epoch, !epoch.IsZero(); epoch.IsZero() {
		o.Created = time.Now()
	}
	return nil
}
