package main

import (
	"errors"
	"time"

	"github.com/tare-oci/tare/internal/flags"
)

func eventsCommand(s *flags.Set) action {
	interval, once := 5*time.Second, false
	s.Duration(&interval, "interval", "TIME", "time between two statistics (default: 5s)")
	s.Bool(&once, "stats", "print the statistics once and exit")
	return func(*env) (int, error) {
		return 0, errors.New("events: not built into this binary yet")
	}
}
