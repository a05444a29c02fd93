package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/tare-oci/tare/internal/flags"
)

var errFormat = errors.New("invalid format option: want table or json")

func listCommand(s *flags.Set) action {
	format, quiet := "table", false
	s.String(&format, "format,f", "table|json", "how to print (default: table)")
	s.Bool(&quiet, "quiet,q", "print ids alone")
	return func(e *env) (int, error) {
		if format != "table" && format != "json" {
			return 0, errFormat
		}
		if e.globals.root != "" { // the default may not be there yet; a named one that is missing is a typing error
			if _, err := os.ReadDir(e.globals.root); err != nil {
				return 0, err
			}
		}
		list, err := e.runtime.List()
		if err != nil {
			return 0, err
		}
		if quiet {
			for _, c := range list {
				fmt.Fprintln(e.stdout, c.ID)
			}
			return 0, nil
		}
		if format == "json" {
			return 0, printJSON(e.stdout, list, "")
		}
		w := tabwriter.NewWriter(e.stdout, 12, 1, 3, ' ', 0)
		fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
		for _, c := range list {
			// A bundle's name is anybody's: no tabs, no escape sequences.
			bundle := strconv.Quote(c.Bundle)
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", c.ID, c.Pid, c.Status, bundle[1:len(bundle)-1], c.Created.Format(time.RFC3339Nano), c.Owner)
		}
		return 0, w.Flush()
	}
}
