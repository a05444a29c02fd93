package launch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
)

// heldNamespaces are the namespaces in the order in which they are joined: the user namespace gives the rights over the others, and
// with the mount namespace paths change.
var heldNamespaces = [...]struct {
	name string // below /proc/PID/ns
	flag uint64
}{
	{"user", plan.NewUser}, {"ipc", plan.NewIPC}, {"uts", plan.NewUTS}, {"net", plan.NewNet}, {"pid", plan.NewPID},
	{"cgroup", plan.NewCgroup}, {"time", plan.NewTime}, {"mnt", plan.NewMount},
}

// Namespace is an open namespace of a container.
type Namespace struct {
	Flag uint64 // CLONE_NEW*
	File *os.File
}

// askNamespaces is the byte to a waiting child that asks for its namespaces; any other one is the word to go on.
const askNamespaces = 2

// Namespaces asks a child that waits for start, at the other end of conn, for the namespaces that it holds, in the order in which they
// are joined; none when it holds none. The caller closes them.
func Namespaces(conn *os.File) ([]Namespace, error) {
	if _, err := conn.Write([]byte{askNamespaces}); err != nil {
		return nil, fmt.Errorf("ask for the container's namespaces: %w", err)
	}
	var list []Namespace
	for {
		r, descriptor, err := receive(int(conn.Fd()))
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err == nil && (r.kind != recordNamespace || descriptor < 0) {
			err = unix.EBADMSG
		}
		if err != nil {
			CloseNamespaces(list)
			return nil, fmt.Errorf("receive the container's namespaces: %w", err)
		}
		list = append(list, newNamespace(r, descriptor))
	}
}

// CloseNamespaces closes what Namespaces has returned.
func CloseNamespaces(list []Namespace) {
	for _, n := range list {
		n.File.Close()
	}
}

func newNamespace(r record, descriptor int) Namespace {
	n := heldNamespaces[int(r.value)%len(heldNamespaces)]
	return Namespace{n.flag, os.NewFile(uintptr(descriptor), n.name)}
}

// holdNamespaces opens the child's own namespaces and, where hooks run before the program is waited for, tells the parent.
func (p *program) holdNamespaces(o plan.HoldNamespaces) {
	for i, n := range heldNamespaces {
		if o.Flags&n.flag == 0 {
			continue
		}
		p.held = append(p.held, i)
		p.sysTo(slotNamespaces+i, unix.SYS_OPENAT, cwd, p.str("/proc/thread-self/ns/"+n.name), val(unix.O_RDONLY|unix.O_CLOEXEC), val(0))
	}
}

// sendNamespaces sends what the child holds over the socket in a slot. That the other side is gone changes nothing, nor does a seccomp
// filter that has no sendmsg.
func (p *program) sendNamespaces(socket int) {
	for _, i := range p.held {
		if socket == slotSync {
			p.due[recordNamespace]++
		}
		msg, ctl := p.message(record{kind: recordNamespace, value: uint32(i)})
		p.ignore(p.do(doSend, noSlot, uintptr(slotNamespaces+i), msg, ctl, uintptr(socket)), unix.EPIPE, unix.EPERM, unix.ENOSYS)
	}
}

// closeOthers closes every descriptor from first on but those in slots, where 0 is none.
func (p *program) closeOthers(first int, slots []int) {
	keep := make([]uintptr, len(slots))
	for i, slot := range slots {
		keep[i] = uintptr(slot)
	}
	p.do(doCloseBut, noSlot, uintptr(first), p.mem.words(keep), uintptr(len(keep)))
}

//go:nosplit
//go:norace
func closeBut(m *machine, in *instr) uintptr {
	const last = uintptr(^uint32(0))
	for first := in.a[0]; ; {
		next := last
		for i := uintptr(0); i < in.a[2]; i++ {
			slot := *(*uintptr)(unsafe.Add(word(in, 1), i*unsafe.Sizeof(uintptr(0))))
			if kept := m.slots[slot&(maxSlots-1)]; kept >= first && kept < next {
				next = kept
			}
		}
		end := next
		if next != last {
			end = next - 1
		}
		if first <= end {
			if _, _, e := syscall.RawSyscall6(unix.SYS_CLOSE_RANGE, first, end, 0, 0, 0, 0); e != 0 {
				return uintptr(e)
			}
		}
		if next == last {
			return 0
		}
		first = next + 1
	}
}
