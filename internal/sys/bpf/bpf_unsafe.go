package bpf

import (
	"encoding/binary"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attr is union bpf_attr as bytes. It is larger than any kernel's: BPF_PROG_QUERY of Linux 6.6 and later writes its
// revision field at offset 56 whatever size the caller gave, so a short structure lets the kernel write over the
// memory behind it.
type attr [256]byte

func (a *attr) u32(off int, v uint32) { binary.NativeEndian.PutUint32(a[off:], v) }
func (a *attr) ptr(off int, p *byte) {
	binary.NativeEndian.PutUint64(a[off:], uint64(uintptr(unsafe.Pointer(p))))
}
func (a *attr) ids(off int, p *uint32) { a.ptr(off, (*byte)(unsafe.Pointer(p))) }

// bpf calls bpf(2) with the part of the union that cmd knows, size bytes; the rest stays as room for the kernel.
func bpf(cmd int, a *attr, size int) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(unsafe.Pointer(a)), uintptr(size))
		runtime.KeepAlive(a)
		switch errno {
		case 0:
			return int(r), nil
		case syscall.EAGAIN, syscall.EINTR: // EAGAIN: a signal arrived while the verifier ran
			continue
		}
		return -1, errno
	}
}

// progLoad is BPF_PROG_LOAD; log may be nil. Addresses are pinned because they travel as integers.
func progLoad(typ int, name string, code, log []byte) (int, error) {
	var a attr
	var pin runtime.Pinner
	defer pin.Unpin()
	license := []byte("Apache-2.0\x00")
	pin.Pin(&code[0])
	pin.Pin(&license[0])
	a.u32(0, uint32(typ))
	a.u32(4, uint32(len(code)/8))
	a.ptr(8, &code[0])
	a.ptr(16, &license[0])
	if log != nil {
		pin.Pin(&log[0])
		a.u32(24, 1)
		a.u32(28, uint32(len(log)))
		a.ptr(32, &log[0])
	}
	copy(a[48:63], name) // prog_name: 15 bytes and a zero
	return bpf(unix.BPF_PROG_LOAD, &a, 72)
}

// progAttach is BPF_PROG_ATTACH or BPF_PROG_DETACH.
func progAttach(cmd, target, prog, flags int) error {
	var a attr
	a.u32(0, uint32(target))
	a.u32(4, uint32(prog))
	a.u32(8, unix.BPF_CGROUP_DEVICE)
	a.u32(12, uint32(flags))
	_, err := bpf(cmd, &a, 20)
	return err
}

// progQuery is BPF_PROG_QUERY; it returns the number of programs, also with ENOSPC.
func progQuery(target int, ids []uint32) (int, error) {
	var a attr
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&ids[0])
	a.u32(0, uint32(target))
	a.u32(4, unix.BPF_CGROUP_DEVICE)
	a.ids(16, &ids[0])
	a.u32(24, uint32(len(ids)))
	_, err := bpf(unix.BPF_PROG_QUERY, &a, 64)
	return int(binary.NativeEndian.Uint32(a[24:])), err
}

// progByID is BPF_PROG_GET_FD_BY_ID.
func progByID(id uint32) (int, error) {
	var a attr
	a.u32(0, id)
	return bpf(unix.BPF_PROG_GET_FD_BY_ID, &a, 12)
}
