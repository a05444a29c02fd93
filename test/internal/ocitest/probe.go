package ocitest

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// probe is what the test binary does inside a container, where it is called /bin/probe. It prints one line.
//
//	probe syscall NR [ARG]…   "ok" or the name of the errno
//	probe cwd                 what getcwd(2) says
//	probe notify TEXT…        sends each to the socket NOTIFY_SOCKET as one datagram; "-" waits a second instead
//	probe swap A B            exchanges two paths over and over (outside, for races)
//	probe watch FILE           writes the permitted sets of the processes that it sees to the file, until it is killed
//	probe deaf FILE [ARG]…    ignores and blocks every signal, and executes the file (outside)
//	probe without NR FILE [ARG]…  executes the file on a kernel that seems to lack a system call (outside)
func probe(args []string) int {
	if len(args) == 0 {
		return 2
	}
	switch args[0] {
	case "watch":
		probeWatch(args[1])
	case "syscall":
		var a [7]uintptr
		for i, s := range args[1:] {
			n, err := strconv.ParseUint(s, 0, 64)
			if neg, negErr := strconv.ParseInt(s, 0, 64); negErr == nil {
				n, err = uint64(neg), nil
			}
			if err != nil {
				return 2
			}
			a[i] = uintptr(n)
		}
		_, _, errno := unix.RawSyscall6(a[0], a[1], a[2], a[3], a[4], a[5], a[6])
		if errno == 0 {
			fmt.Println("ok")
		} else {
			fmt.Println(unix.ErrnoName(errno))
		}
	case "cwd":
		var buf [4096]byte
		n, err := unix.Getcwd(buf[:])
		fmt.Println(string(buf[:max(n-1, 0)]), err)
	case "deaf":
		deafen()
		fmt.Println(unix.Exec(args[1], args[1:], os.Environ()))
		return 1
	case "without":
		n, err := strconv.ParseUint(args[1], 10, 32)
		if err == nil {
			err = refuse(uint32(n))
		}
		if err == nil {
			err = unix.Exec(args[2], args[2:], os.Environ())
		}
		fmt.Fprintln(os.Stderr, "probe without", args[1], err)
		return 1
	case "notify":
		c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
		for i := 0; err == nil && i < len(args)-1; i++ {
			if args[i+1] == "-" {
				time.Sleep(time.Second)
				continue
			}
			_, err = c.Write([]byte(args[i+1]))
		}
		if err != nil {
			fmt.Println(err)
			return 1
		}
	case "swap":
		for {
			unix.Renameat2(unix.AT_FDCWD, args[1], unix.AT_FDCWD, args[2], unix.RENAME_EXCHANGE)
		}
	default:
		return 2
	}
	return 0
}

// probeWatch writes the permitted capability sets of all other processes that it sees to a file, a new one as soon as it is seen,
// until it is killed.
func probeWatch(file string) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintln(f, "watching")
	written := map[string]bool{}
	for self := strconv.Itoa(os.Getpid()); ; {
		entries, _ := os.ReadDir("/proc")
		for _, e := range entries {
			if name := e.Name(); name == self || name[0] < '1' || name[0] > '9' {
				continue
			}
			status, _ := os.ReadFile("/proc/" + e.Name() + "/status")
			if environ, _ := os.ReadFile("/proc/" + e.Name() + "/environ"); strings.Contains(string(environ), "HOSTSECRET") && !written["secret"] {
				written["secret"] = true
				fmt.Fprintln(f, "the-caller's-environment")
			}
			_, rest, ok := strings.Cut(string(status), "CapPrm:\t")
			if set, _, _ := strings.Cut(rest, "\n"); ok && !written[set] {
				written[set] = true
				fmt.Fprintln(f, set)
			}
		}
	}
}
