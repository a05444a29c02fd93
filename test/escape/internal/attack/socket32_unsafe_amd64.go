package attack

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// int80 makes a system call by the 32-bit entry.
func int80(nr, a, b, c uint32) int32

// socket32 asks for a socket of a family in every way but the plain one, and prints what each answers.
func socket32(family string) error {
	n, err := strconv.ParseUint(family, 10, 32)
	if err != nil {
		return err
	}
	time.AfterFunc(2*time.Second, func() { os.Exit(1) }) // a filter may have killed the calling thread alone
	page, err := unix.MmapPtr(-1, 0, nil, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_32BIT)
	if err != nil {
		return err
	}
	*(*[3]uint32)(page) = [3]uint32{uint32(n), unix.SOCK_SEQPACKET, 0}
	say := func(what string, errno syscall.Errno) {
		word := "ok"
		if errno != 0 {
			word = unix.ErrnoName(errno)
		}
		fmt.Println(what, word)
	}
	from := func(r int32) syscall.Errno {
		if r < 0 {
			return syscall.Errno(-r)
		}
		return 0
	}
	say("socket", from(int80(359, uint32(n), unix.SOCK_SEQPACKET, 0)))
	say("socketcall", from(int80(102, 1, uint32(uintptr(unsafe.Pointer(page))), 0)))
	_, _, e := unix.RawSyscall(unix.SYS_SOCKET, uintptr(n)|0xdead<<32, unix.SOCK_SEQPACKET, 0)
	say("upper", e)
	_, _, e = unix.RawSyscall(unix.SYS_SOCKET|0x40000000, uintptr(n), unix.SOCK_SEQPACKET, 0)
	say("x32", e)
	return nil
}
