package main

import "github.com/tare-oci/tare/internal/flags"

func deleteCommand(s *flags.Set) action {
	var force bool
	s.Bool(&force, "force,f", "kill the container first if it runs; no error if there is none")
	return func(e *env) (int, error) { return 0, e.runtime.Delete(e, e.args[0], force) }
}
