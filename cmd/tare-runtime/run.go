package main

import (
	"github.com/tare-oci/tare/internal/flags"
	"github.com/tare-oci/tare/runtime/lifecycle"
)

func runCommand(s *flags.Set) action {
	var o lifecycle.RunOptions
	createFlags(s, &o.CreateOptions)
	s.Bool(&o.Detach, "detach,d", "return when the process runs")
	s.Bool(&o.Keep, "keep", "leave the container's state to delete when it has stopped")
	s.Bool(&o.NoSubreaper, "no-subreaper", "do not adopt processes that the container leaves behind")
	return func(e *env) (int, error) {
		o.ID = e.args[0]
		return e.runtime.Run(e, o)
	}
}
