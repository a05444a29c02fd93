package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/internal/getopt"
	"github.com/tare-oci/tare/internal/sys/pty"
)

var loadCommand = command{
	name:    "load",
	summary: "Store the images of a tar file",
	setup:   setupLoad,
	more: `
Reads what docker save, podman save, tare save and ctr images export write, and OCI layouts in a tar file, compressed or not.
`,
}

func setupLoad(set *getopt.Set) func([]string) (int, error) {
	var o engine.LoadOptions
	var p progress
	var root, input string
	var quiet, asJSON bool
	set.String(&input, "input", 'i', "FILE", "read this file in place of standard input")
	set.Func("platform", 0, "OS/ARCH[/VARIANT]", "of indexes only the images for this platform; may be repeated", platforms(&o.Platforms))
	set.Bool(&o.NoUnpack, "no-unpack", 0, "only store the images; layers are unpacked when they are run")
	set.Bool(&quiet, "quiet", 'q', "do not tell what is moved")
	set.Bool(&asJSON, "json", 0, "print what was loaded as JSON")
	progressOption(set, &p)
	rootOption(set, &root)
	return func(args []string) (int, error) {
		if len(args) > 0 {
			return exitTare, errors.New("load: takes no arguments; -i FILE names the file")
		}
		e, err := openEngine(root)
		if err != nil {
			return 1, err
		}
		if input == "" || input == "-" {
			name, err := spoolInput()
			if err != nil {
				return 1, err
			}
			input = name
		}
		o.Warn = warn
		p.mode = quietUnless(p.mode)
		o.Progress = p.begin(quiet)
		list, err := e.Load(signalContext(), input, o)
		p.end()
		if err != nil {
			return 1, err
		}
		if asJSON {
			return failed(printJSON(list))
		}
		for _, l := range list {
			switch {
			case l.Name != "":
				fmt.Println("Loaded image:", engine.Familiar(l.Name))
			case l.ID != "":
				fmt.Println("Loaded image ID:", l.ID)
			default:
				fmt.Println("Loaded artifact:", l.Digest)
			}
		}
		return 0, nil
	}
}

// quietUnless makes of auto none where there is no terminal: what comes from a file comes fast.
func quietUnless(mode string) string {
	if mode == "auto" && !pty.IsTerminal(os.Stderr) {
		return "none"
	}
	return mode
}

// maxInput bounds what is read from standard input, as archives are bounded.
const maxInput = 16 << 30

// spoolInput returns a name of standard input that can be opened and sought: its own, or that of a copy without one in any
// directory.
func spoolInput() (string, error) {
	const stdin = "/proc/self/fd/0"
	if pty.IsTerminal(os.Stdin) {
		return "", errors.New("standard input is a terminal, from which no tar file comes: use -i FILE or redirect it")
	}
	if info, err := os.Stdin.Stat(); err == nil && info.Mode().IsRegular() {
		return stdin, nil
	}
	f, err := os.CreateTemp("", "tare-load-")
	if err != nil {
		return "", err
	}
	if err := os.Remove(f.Name()); err != nil {
		return "", err
	}
	n, err := io.Copy(f, io.LimitReader(os.Stdin, maxInput+1))
	if err != nil {
		return "", err
	}
	if n > maxInput {
		return "", fmt.Errorf("standard input has more than %d bytes, the limit: use -i FILE", int64(maxInput))
	}
	return fmt.Sprintf("/proc/self/fd/%d", f.Fd()), nil
}
