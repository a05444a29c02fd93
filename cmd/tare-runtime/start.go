package main

import (
	"errors"

	"github.com/tare-oci/tare/internal/flags"
)

func startCommand(*flags.Set) action {
	return func(*env) (int, error) {
		return 0, errors.New("start: not built into this binary yet")
	}
}
