package runtime

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers and structures of linux/seccomp.h.
const (
	ioctlNotifRecv = 0xc0502100
	ioctlNotifSend = 0xc0182101
	notifContinue  = 1 // SECCOMP_USER_NOTIF_FLAG_CONTINUE
)

type notif struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

type notifResp struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

// reply is an agent's answer to a call: a value, an errno, or that the kernel goes on with it.
type reply struct {
	val     int64
	errno   int32
	goesOn  bool
	hangsUp bool // no answer: the agent closes the listener
}

// serveCalls answers the calls of a listener until its last process is gone, and closes it.
func serveCalls(fd int, decide func(*notif) reply) {
	defer unix.Close(fd)
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, 20000); err == unix.EINTR {
			continue
		} else if n != 1 || p[0].Revents&unix.POLLIN == 0 {
			return
		}
		var n notif
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlNotifRecv, uintptr(unsafe.Pointer(&n))); e != 0 {
			continue
		}
		a := decide(&n)
		if a.hangsUp {
			return
		}
		r := notifResp{id: n.id, val: a.val, err: -a.errno}
		if a.goesOn {
			r = notifResp{id: n.id, flags: notifContinue}
		}
		unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlNotifSend, uintptr(unsafe.Pointer(&r)))
	}
}
