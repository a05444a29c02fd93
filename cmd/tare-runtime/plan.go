package main

import (
	"encoding/json"

	"github.com/tare-oci/tare/internal/flags"
)

func planCommand(s *flags.Set) action {
	var asJSON bool
	s.Bool(&asJSON, "json", "print JSON")
	return func(e *env) (int, error) {
		bundle := "."
		if len(e.args) > 0 {
			bundle = e.args[0]
		}
		p, err := e.runtime.Plan(bundle)
		if err != nil {
			return 1, err
		}
		if !asJSON {
			return 0, p.WriteText(e.stdout)
		}
		enc := json.NewEncoder(e.stdout)
		enc.SetIndent("", "  ")
		return 0, enc.Encode(p)
	}
}
