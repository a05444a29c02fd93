package main

import (
	"github.com/tare-oci/tare/internal/flags"
	"github.com/tare-oci/tare/runtime/spec"
)

func killCommand(s *flags.Set) action {
	var all bool
	s.Bool(&all, "all,a", "send the signal to all processes of the container")
	return func(e *env) (int, error) {
		name := "TERM"
		if len(e.args) > 1 {
			name = e.args[1]
		}
		sig, err := spec.ParseSignal(name)
		if err != nil {
			return 0, err
		}
		return 0, e.runtime.Kill(e, e.args[0], sig, all)
	}
}
