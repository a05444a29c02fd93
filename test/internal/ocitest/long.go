package ocitest

import (
	"flag"
	"os"
)

var longFlag = flag.Bool("long", false, "run long races too (or TARE_LONG=1)")

// Long reports whether tests that take minutes are wanted.
func Long() bool { return *longFlag || os.Getenv("TARE_LONG") == "1" }
