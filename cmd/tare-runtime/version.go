package main

import (
	"fmt"
	"io"
	"runtime"

	"github.com/tare-oci/tare/runtime/spec"
)

// Set by the linker: -X main.version=… -X main.commit=….
var (
	version = "0.1.0-dev"
	commit  = "unknown"
)

func printVersion(w io.Writer) {
	fmt.Fprintf(w, "tare-runtime version %s\ncommit: %s\nspec: %s\ngo: %s\n", version, commit, spec.VersionMax, runtime.Version())
}
