package main

import (
	"fmt"

	"github.com/tare-oci/tare/internal/flags"
)

// leaksCommand prints what containers have left, and with ids what those have left whose state is gone. Its status is 1 when there is
// something.
func leaksCommand(*flags.Set) action {
	return func(e *env) (int, error) {
		left, err := e.runtime.Leaks(e.args)
		if err != nil {
			return 0, err
		}
		for _, line := range left {
			fmt.Fprintln(e.stdout, line)
		}
		return min(len(left), 1), nil
	}
}
