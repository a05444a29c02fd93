package main

import (
	"github.com/tare-oci/tare/internal/flags"
	"github.com/tare-oci/tare/runtime/features"
)

func featuresCommand(*flags.Set) action {
	return func(e *env) (int, error) { return 0, printJSON(e.stdout, features.Document(version, commit), "    ") }
}
