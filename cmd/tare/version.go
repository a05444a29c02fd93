package main

import (
	"fmt"
	"runtime"

	"github.com/tare-oci/tare/internal/getopt"
)

var versionCommand = command{
	name:    "version",
	summary: "Print the version",
	setup: func(*getopt.Set) func([]string) (int, error) {
		return func([]string) (int, error) {
			fmt.Printf("tare version %s\n%s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return 0, nil
		}
	},
}
