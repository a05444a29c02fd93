package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/tare-oci/tare/internal/flags"
)

func stateCommand(*flags.Set) action {
	return func(e *env) (int, error) {
		s, err := e.runtime.State(e.args[0])
		if err != nil {
			return 0, err
		}
		return 0, printJSON(e.stdout, s, "  ")
	}
}

// printJSON writes v and a newline, indented by indent unless that is empty.
func printJSON(w *os.File, v any, indent string) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", indent)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}
