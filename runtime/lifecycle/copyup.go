package lifecycle

import "github.com/tare-oci/tare/runtime/launch"

// CopyUpArg is the first argument with which a runtime starts its own program to fill a tmpfs of a container.
const CopyUpArg = launch.CopyUpArg

// CopyUp is that program, with the arguments after the first one. It returns the exit status.
func CopyUp(args []string) int { return launch.CopyUp(args) }
