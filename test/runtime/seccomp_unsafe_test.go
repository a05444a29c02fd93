package runtime

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers and structures of linux/seccomp.h.
const (
	ioctlNotifRecv = 0xc0502100
	ioctlNotifSend = 0xc0182101
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

// answer replies to notified calls with an errno until the last process under the filter is gone, and closes fd.
func answer(fd int, errnum int32) {
	defer unix.Close(fd)
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, 10000); err == unix.EINTR {
			continue
		} else if n != 1 || p[0].Revents&unix.POLLIN == 0 {
			return
		}
		var n notif
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlNotifRecv, uintptr(unsafe.Pointer(&n))); e != 0 {
			continue
		}
		r := notifResp{id: n.id, err: -errnum}
		unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlNotifSend, uintptr(unsafe.Pointer(&r)))
	}
}
