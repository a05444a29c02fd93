package main

import (
	"github.com/tare-oci/tare/internal/flags"
)

func startCommand(*flags.Set) action {
	return func(e *env) (int, error) {
		return 0, e.runtime.Start(e, e.args[0])
	}
}
