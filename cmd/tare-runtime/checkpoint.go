package main

import (
	"errors"
	"strconv"
	"strings"

	"github.com/tare-oci/tare/internal/flags"
	"github.com/tare-oci/tare/runtime/criu"
	"github.com/tare-oci/tare/runtime/lifecycle"
)

// criuFlags names the flags that checkpoint and restore share.
func criuFlags(s *flags.Set, o *lifecycle.CriuOptions) {
	s.String(&o.ImagePath, "image-path", "DIR", "directory of criu's images (default: checkpoint)")
	s.String(&o.WorkPath, "work-path", "DIR", "directory of criu's log and statistics (default: the image directory)")
	s.Bool(&o.TCPEstablished, "tcp-established", "keep open TCP connections")
	s.Bool(&o.ExtUnixSk, "ext-unix-sk", "allow unix sockets that are connected with others outside")
	s.Bool(&o.ShellJob, "shell-job", "allow processes of a shell's session")
	s.Bool(&o.FileLocks, "file-locks", "keep file locks")
	s.Bool(&o.AutoDedup, "auto-dedup", "remove memory pages from images that do not need them any more")
	s.Bool(&o.LazyPages, "lazy-pages", "fetch memory pages when they are used (userfaultfd)")
	s.String(&o.CgroupsMode, "manage-cgroups-mode", "soft|full|strict|ignore", "what criu does with cgroups (default: soft)")
	s.Strings(&o.EmptyNS, "empty-ns", "TYPE", "make a namespace without its content: network")
}

func checkpointCommand(s *flags.Set) action {
	var o lifecycle.CheckpointOptions
	criuFlags(s, &o.CriuOptions)
	o.StatusFD = -1
	s.String(&o.ParentPath, "parent-path", "DIR", "images of an earlier pre-dump, relative to the image directory")
	s.Bool(&o.LeaveRunning, "leave-running", "let the container run afterwards")
	s.Bool(&o.TCPSkipInFlight, "tcp-skip-in-flight", "leave out TCP connections that are not established yet")
	s.Bool(&o.LinkRemap, "link-remap", "link files that were unlinked back for the images")
	s.Bool(&o.PreDump, "pre-dump", "write memory pages only; the container runs on")
	s.Int(&o.StatusFD, "status-fd", "FD", "criu writes a zero byte to FD once lazy pages are served")
	s.Func(func(v string) (err error) {
		o.PageServer, err = parsePageServer(v)
		return err
	}, "page-server", "ADDRESS:PORT", "send memory pages there")
	return func(e *env) (int, error) {
		o.ID = e.args[0]
		return 0, e.runtime.Checkpoint(e, o)
	}
}

// parsePageServer reads ADDRESS:PORT, an IPv6 address in brackets.
func parsePageServer(s string) (*criu.PageServer, error) {
	i := strings.LastIndexByte(s, ':')
	if i <= 0 || i == len(s)-1 {
		return nil, errors.New("use --page-server ADDRESS:PORT to specify page server")
	}
	port, err := strconv.ParseUint(s[i+1:], 10, 16)
	if err != nil {
		return nil, errors.New("invalid port number")
	}
	address := s[:i]
	if address[0] == '[' && address[len(address)-1] == ']' {
		address = address[1 : len(address)-1]
	}
	return &criu.PageServer{Address: address, Port: int(port)}, nil
}
