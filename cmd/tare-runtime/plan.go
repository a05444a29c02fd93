package main

import (
	"errors"

	"github.com/tare-oci/tare/internal/flags"
)

func planCommand(s *flags.Set) action {
	var asJSON bool
	s.Bool(&asJSON, "json", "print JSON")
	return func(*env) (int, error) {
		return 0, errors.New("plan: not built into this binary yet")
	}
}
