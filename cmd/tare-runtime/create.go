package main

import (
	"github.com/tare-oci/tare/internal/flags"
	"github.com/tare-oci/tare/runtime/lifecycle"
)

// createFlags names the flags that create and run share.
func createFlags(s *flags.Set, o *lifecycle.CreateOptions) {
	s.String(&o.Bundle, "bundle,b", "DIR", "the bundle (default: the working directory)")
	s.String(&o.ConsoleSocket, "console-socket", "SOCKET", "unix socket that receives the terminal's master")
	s.String(&o.PidfdSocket, "pidfd-socket", "SOCKET", "unix socket that receives a pidfd of the process")
	s.String(&o.PidFile, "pid-file", "FILE", "write the process's number to FILE")
	s.Bool(&o.NoPivot, "no-pivot", "move the root instead of pivoting into it, on an initramfs")
	s.Bool(&o.NoNewKeyring, "no-new-keyring", "keep the caller's session keyring")
	s.Int(&o.PreserveFDs, "preserve-fds", "N", "pass N more descriptors, from 3 on after those of LISTEN_FDS")
}

func createCommand(s *flags.Set) action {
	var o lifecycle.CreateOptions
	createFlags(s, &o)
	return func(e *env) (int, error) {
		o.ID = e.args[0]
		return 0, e.runtime.Create(e, o)
	}
}
