package main

import (
	"github.com/tare-oci/tare/internal/flags"
	"github.com/tare-oci/tare/runtime/lifecycle"
)

func restoreCommand(s *flags.Set) action {
	var o lifecycle.RestoreOptions
	criuFlags(s, &o.CriuOptions)
	s.String(&o.Bundle, "bundle,b", "DIR", "the bundle (default: the working directory)")
	s.String(&o.ConsoleSocket, "console-socket", "SOCKET", "unix socket that receives the terminal's master")
	s.String(&o.PidFile, "pid-file", "FILE", "write the process's number to FILE")
	s.Bool(&o.Detach, "detach,d", "return when the process runs")
	s.Bool(&o.NoSubreaper, "no-subreaper", "do not adopt processes that the container leaves behind")
	s.Bool(&o.NoPivot, "no-pivot", "not supported: criu always pivots")
	s.String(&o.LSMProfile, "lsm-profile", "TYPE:NAME", "security label, in place of that of config.json")
	s.String(&o.LSMMountContext, "lsm-mount-context", "CONTEXT", "SELinux context of mounts")
	return func(e *env) (int, error) {
		o.ID = e.args[0]
		return e.runtime.Restore(e, o)
	}
}
