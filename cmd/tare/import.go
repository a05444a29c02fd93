package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/tare-oci/tare/image/manifest"
	"github.com/tare-oci/tare/image/mutate"
	"github.com/tare-oci/tare/internal/getopt"
	"github.com/tare-oci/tare/internal/sys/pty"
)

var importCommand = command{
	name:    "import",
	args:    "FILE|- [NAME[:TAG]]",
	summary: "Make an image of a tar file with the files of a root file system",
	setup:   setupImport,
}

func setupImport(set *getopt.Set) func([]string) (int, error) {
	var o mutate.Options
	var root string
	p := manifest.Host()
	if p.Architecture != "arm" { // there is no arm without
		p.Variant = "" // what this processor can do besides says nothing of the files
	}
	makeOptions(set, &o)
	compressionOption(set, &o.Compression)
	set.Func("platform", 0, "OS/ARCH[/VARIANT]", "what the files are for (this machine)", func(v string) (err error) {
		p, err = manifest.ParsePlatform(v)
		return err
	})
	rootOption(set, &root)
	return func(args []string) (int, error) {
		if len(args) < 1 || len(args) > 2 {
			return exitTare, errors.New("import: takes FILE or - and a NAME (tare import --help)")
		}
		if strings.Contains(args[0], "://") {
			return exitTare, errors.New("import: tar files are not fetched from URLs: pipe what fetches it into tare import -")
		}
		if err := dateOf(&o); err != nil {
			return exitTare, err
		}
		in, err := openInput(args[0])
		if err != nil {
			return 1, err
		}
		defer in.Close()
		e, err := openEngine(root)
		if err != nil {
			return 1, err
		}
		if o.Message == "" {
			o.Message = "Imported from " + args[0]
		}
		_, id, err := e.Import(signalContext(), in, second(args), p, o)
		if err != nil {
			return 1, err
		}
		fmt.Println(id)
		return 0, nil
	}
}

func openInput(name string) (io.ReadCloser, error) {
	if name != "-" {
		return os.Open(name)
	}
	if pty.IsTerminal(os.Stdin) {
		return nil, errors.New("standard input is a terminal, from which no tar file comes")
	}
	return os.Stdin, nil
}
