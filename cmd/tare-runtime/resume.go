package main

import "github.com/tare-oci/tare/internal/flags"

func resumeCommand(*flags.Set) action {
	return func(e *env) (int, error) { return 0, e.runtime.Resume(e, e.args[0]) }
}
