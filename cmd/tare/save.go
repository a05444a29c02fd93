package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/tare-oci/tare/image/archive"
	"github.com/tare-oci/tare/internal/getopt"
	"github.com/tare-oci/tare/internal/sys/pty"
)

var saveCommand = command{
	name:     "save",
	args:     "IMAGE…",
	summary:  "Write images to one tar file",
	operands: "image",
	setup:    setupSave,
	more: `
The file is an OCI layout and what docker save writes in one: docker load, podman load, skopeo and ctr read it. The same images
give the same bytes. --format legacy writes the form of Docker 1.10 to 24.
`,
}

func setupSave(set *getopt.Set) func([]string) (int, error) {
	var o archive.SaveOptions
	var root, output string
	set.String(&output, "output", 'o', "FILE", "write to this file in place of standard output")
	set.Func("format", 0, "FORMAT", "combined (the default) or legacy", func(v string) error {
		switch o.Format = archive.SaveFormat(v); o.Format {
		case archive.Combined, archive.Legacy:
			return nil
		}
		return fmt.Errorf("%q is neither combined nor legacy", v)
	})
	set.Func("platform", 0, "OS/ARCH[/VARIANT]", "of indexes only the images for this platform; may be repeated", platforms(&o.Platforms))
	rootOption(set, &root)
	return func(args []string) (int, error) {
		if len(args) == 0 {
			return exitTare, errors.New("save: IMAGE is missing (tare save --help)")
		}
		e, err := openEngine(root)
		if err != nil {
			return 1, err
		}
		return failed(writeTo(output, func(w io.Writer) error { return e.Save(signalContext(), w, args, o) }))
	}
}

// writeTo gives write a file that has its name only when it is complete, or standard output if name is empty, unless that is a
// terminal.
func writeTo(name string, write func(io.Writer) error) error {
	if name == "" || name == "-" {
		if pty.IsTerminal(os.Stdout) {
			return errors.New("standard output is a terminal, which a tar file is not for: use -o FILE or redirect it")
		}
		return write(os.Stdout)
	}
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".tare-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone after the renaming
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
