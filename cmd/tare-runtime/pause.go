package main

import "github.com/tare-oci/tare/internal/flags"

func pauseCommand(*flags.Set) action {
	return func(e *env) (int, error) { return 0, e.runtime.Pause(e, e.args[0]) }
}
