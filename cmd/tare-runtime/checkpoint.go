package main

import (
	"fmt"

	"github.com/tare-oci/tare/internal/flags"
)

// checkpointCommand refuses checkpoint and restore whatever their arguments.
func checkpointCommand(name string) func(*flags.Set) action {
	return func(*flags.Set) action {
		return func(*env) (int, error) {
			return 0, fmt.Errorf("%s is not supported: tare-runtime cannot checkpoint or restore containers", name)
		}
	}
}
