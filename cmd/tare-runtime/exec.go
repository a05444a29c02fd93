package main

import (
	"errors"
	"strconv"

	"github.com/tare-oci/tare/internal/flags"
	"github.com/tare-oci/tare/runtime/lifecycle"
)

// execFailed is the exit status of exec when the runtime itself fails, so that it is not taken for the process's.
const execFailed = 255

func execCommand(s *flags.Set) action {
	var o lifecycle.ExecOptions
	s.String(&o.ConsoleSocket, "console-socket", "SOCKET", "unix socket that receives the terminal's master")
	s.String(&o.PidfdSocket, "pidfd-socket", "SOCKET", "unix socket that receives a pidfd of the process")
	s.String(&o.Cwd, "cwd", "DIR", "working directory in the container")
	s.Strings(&o.Env, "env,e", "KEY=VALUE", "set an environment variable; repeatable")
	s.Bool(&o.Tty, "tty,t", "give the process a terminal")
	s.String(&o.User, "user,u", "UID[:GID]", "user of the process")
	s.Func(func(v string) error {
		gid, err := strconv.ParseUint(v, 10, 32)
		o.AdditionalGids = append(o.AdditionalGids, uint32(gid))
		if err != nil {
			return errors.New("not a group number")
		}
		return nil
	}, "additional-gids,g", "GID", "another group of the process; repeatable")
	s.String(&o.ProcessFile, "process,p", "FILE", "take the process from FILE, a process of the specification as JSON")
	s.Bool(&o.Detach, "detach,d", "return when the process runs")
	s.String(&o.PidFile, "pid-file", "FILE", "write the process's number to FILE")
	s.String(&o.ProcessLabel, "process-label", "LABEL", "SELinux label of the process")
	s.String(&o.AppArmor, "apparmor", "PROFILE", "AppArmor profile of the process")
	s.Bool(&o.NoNewPrivs, "no-new-privs", "the process and its children never gain privileges")
	s.Strings(&o.Caps, "cap,c", "CAP", "add a capability; repeatable")
	s.Int(&o.PreserveFDs, "preserve-fds", "N", "pass N more descriptors, from 3 on")
	s.Strings(&o.Cgroups, "cgroup", "[CONTROLLER:]PATH", "run in an existing cgroup below the container's; repeatable")
	s.Bool(&o.IgnorePaused, "ignore-paused", "allow a paused container")
	return func(e *env) (int, error) {
		o.ID, o.Args = e.args[0], e.args[1:]
		if len(o.Args) == 0 && o.ProcessFile == "" {
			return execFailed, errors.New("exec args cannot be empty")
		}
		return e.runtime.Exec(e, o)
	}
}
