package main

import (
	"encoding/json"
	"time"

	"github.com/tare-oci/tare/internal/flags"
	"github.com/tare-oci/tare/runtime/lifecycle"
)

func eventsCommand(s *flags.Set) action {
	interval, once := 5*time.Second, false
	s.Duration(&interval, "interval", "TIME", "time between two statistics (default: 5s)")
	s.Bool(&once, "stats", "print the statistics once and exit")
	return func(e *env) (int, error) {
		out := json.NewEncoder(e.stdout)
		return 0, e.runtime.Events(e, e.args[0], interval, once, func(ev lifecycle.Event) error { return out.Encode(ev) })
	}
}
