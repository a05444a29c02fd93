package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/tare-oci/tare/engine"
	"github.com/tare-oci/tare/image/reference"
	"github.com/tare-oci/tare/internal/getopt"
)

var imagesCommand = command{
	name:     "images",
	args:     "[NAME[:TAG]]",
	summary:  "List the images in the local store",
	operands: "image",
	setup:    setupImages,
	more: `
SIZE is what the image takes in the store, compressed as it was pulled. NAME without a tag lists all tags of a repository.
Filters: dangling=true|false (without a name), reference=PATTERN (* for anything but /).
`,
}

type imagesOptions struct {
	all, asJSON, quiet, full, digests bool
	filters                           []string
}

func setupImages(set *getopt.Set) func([]string) (int, error) {
	var o imagesOptions
	var root string
	set.Bool(&o.all, "all", 'a', "for docker's habit: all are listed anyway")
	set.Bool(&o.digests, "digests", 0, "list digests of index or manifest too")
	set.Strings(&o.filters, "filter", 'f', "KEY=VALUE", "list only some")
	set.Bool(&o.full, "no-trunc", 0, "whole IDs")
	set.Bool(&o.quiet, "quiet", 'q', "IDs only")
	set.Bool(&o.asJSON, "json", 0, "write a JSON array")
	noFormat(set)
	rootOption(set, &root)
	return func(args []string) (int, error) {
		if len(args) > 1 {
			return exitTare, errors.New("images: takes at most one NAME")
		}
		match, err := imageFilter(args, o.filters)
		if err != nil {
			return exitTare, err
		}
		e, err := openEngine(root)
		if err != nil {
			return 1, err
		}
		all, err := e.Images(signalContext())
		if err != nil {
			return 1, err
		}
		list := []engine.ImageInfo{}
		for _, i := range all {
			if match(i) {
				list = append(list, i)
			}
		}
		if o.asJSON {
			return 0, printJSON(list)
		}
		return 0, o.table(os.Stdout, list, time.Now())
	}
}

func (o *imagesOptions) table(w io.Writer, list []engine.ImageInfo, now time.Time) error {
	if o.quiet {
		seen := map[string]bool{}
		for _, i := range list {
			id := o.id(string(i.ID))
			if i.ID == "" {
				id = o.id(string(i.Digest))
			}
			if !seen[id] {
				fmt.Fprintln(w, id)
			}
			seen[id] = true
		}
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	head := "REPOSITORY\tTAG\t"
	if o.digests {
		head += "DIGEST\t"
	}
	fmt.Fprintln(t, head+"IMAGE ID\tCREATED\tSIZE")
	for _, i := range list {
		line := orNone(printable(i.Repository)) + "\t" + orNone(i.Tag) + "\t"
		if o.digests {
			line += string(i.Digest) + "\t"
		}
		created := "-"
		if i.Created != nil {
			created = age(now.Sub(*i.Created)) + " ago"
		}
		fmt.Fprintln(t, line+orNone(o.id(string(i.ID)))+"\t"+created+"\t"+size(i.Size))
	}
	return t.Flush()
}

func (o *imagesOptions) id(id string) string {
	if o.full || id == "" {
		return id
	}
	_, hex, _ := strings.Cut(id, ":")
	return fmt.Sprintf("%.12s", hex)
}

func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}

// imageFilter returns what chooses from a list.
func imageFilter(names, filters []string) (func(engine.ImageInfo) bool, error) {
	var all []func(engine.ImageInfo) bool
	for _, name := range names {
		n, err := reference.ParseName(name)
		if err != nil {
			return nil, err
		}
		tagged := strings.LastIndexByte(name, ':') > strings.LastIndexByte(name, '/') || n.Digest != ""
		all = append(all, func(i engine.ImageInfo) bool {
			return i.Name == n.String() || !tagged && i.Repository == engine.FamiliarName(n)
		})
	}
	for _, f := range filters {
		key, value, _ := strings.Cut(f, "=")
		switch {
		case key == "dangling" && (value == "true" || value == "false"):
			all = append(all, func(i engine.ImageInfo) bool { return (i.Name == "") == (value == "true") })
		case key == "reference" && value != "":
			all = append(all, func(i engine.ImageInfo) bool { return matchReference(value, i) })
		default:
			return nil, fmt.Errorf("filter %q: there are dangling=true|false and reference=PATTERN", f)
		}
	}
	return func(i engine.ImageInfo) bool {
		for _, match := range all {
			if !match(i) {
				return false
			}
		}
		return true
	}, nil
}
