package launch

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
)

// Slots with a fixed meaning. Descriptors that only one operation needs live in the temporary ones.
const (
	slotSync   = iota // the child's end of the socket pair
	slotParent        // the parent's end, which the child closes
	slotListen        // listening socket for start
	slotConn          // connection from start
	slotRoot          // the container's root
	slotPIDFD         // process to join
	slotMaster        // of the terminal
	slotSlave
	slotNull    // the host's /dev/null
	slotMask    // the empty tmpfs
	slotAsk     // the child's end of the socket pair with its helper
	slotAnswer  // the helper's end
	slotChild   // pidfd of the child, for its helper
	slotTree    // root of a container in the host's mount namespace, for exec
	slotFound   // number of the program's path
	slotUmask   // of the runtime's caller
	slotCwd     // 1 when the working directory was entered
	slotForeign // 1 when what is on /dev is not the container's own
	slotT0
	slotT1
	slotT2
	slotNamespaces                                        // first of those that the child holds, as heldNamespaces lists them
	slotFree       = slotNamespaces + len(heldNamespaces) // first of the others
)

// arg is an argument of a system call: a value or the content of a slot.
type arg struct {
	v    uintptr
	slot bool
}

func val[T ~int | ~int32 | ~int64 | ~uint32 | ~uint64 | ~uintptr | ~uint8 | ~uint16](v T) arg {
	return arg{v: uintptr(v)}
}
func fd(slot int) arg { return arg{uintptr(slot), true} }

var cwd = arg{v: at}

// program is a lowered plan.
type program struct {
	mem     *arena
	code    []instr
	labels  []string // per instruction, the start of its error sentence
	ops     []plan.Op
	op      plan.Op // being lowered
	label   string
	slots   []uintptr // initial values
	named   map[string]int
	places  [marks]int // slots of what the configuration mounted on /proc, /sys and /dev; 0: nothing
	dev     int        // slot of the directory for default devices
	exists  string     // the condition of the last link, and the instruction that looks
	missing int
	res     *Resources
	first   int    // descriptor that the program does not get
	held    []int  // of heldNamespaces, open in the child
	pidNS   int    // slot of the pid namespace that is joined for children
	closed  bool   // the child was born with no descriptor of the runtime's
	due     due    // what the program sends over slotSync
	asked   bool   // the child has questions on its way: see stageReady
	helper  int    // first instruction of the helper
	ends    [2]int // of the socket pair between the child and its helper, while it is open here
	listens bool   // the child clones a helper for its seccomp listener: see listener_unsafe.go
}

func newProgram(mem *arena, res *Resources) *program {
	p := &program{mem: mem, named: map[string]int{}, res: res, first: 3, asked: res.Ready, slots: make([]uintptr, slotFree, 64)}
	p.code = make([]instr, 0, 512)
	p.labels = make([]string, 0, 512)
	p.ops = make([]plan.Op, 0, 512)
	return p
}

// slot reserves a slot with an initial value.
func (p *program) slot(v uintptr) int {
	if len(p.slots) == maxSlots {
		panic(errFull)
	}
	p.slots = append(p.slots, v)
	return len(p.slots) - 1
}

func (p *program) str(s string) arg { return arg{v: p.mem.str(s)} }

// begin starts the lowering of op.
func (p *program) begin(op plan.Op) {
	p.op = op
	p.label = op.What()
	if _, ok := op.(plan.Symlink); !ok {
		p.exists, p.missing = "", -1
	}
}

// emit appends an instruction and returns its number.
func (p *program) emit(in instr) int {
	p.code = append(p.code, in)
	p.labels = append(p.labels, p.label)
	p.ops = append(p.ops, p.op)
	return len(p.code) - 1
}

// sys appends a system call whose result is not kept.
func (p *program) sys(nr uintptr, args ...arg) int { return p.sysTo(noSlot, nr, args...) }

// sysTo appends a system call whose result goes to a slot.
func (p *program) sysTo(out int, nr uintptr, args ...arg) int {
	in := instr{kind: doSyscall, out: uint16(out), nr: nr}
	for i, a := range args {
		in.a[i] = a.v
		if a.slot {
			in.slots |= 1 << i
		}
	}
	return p.emit(in)
}

// do appends one of the machine's own instructions.
func (p *program) do(kind uint16, out int, args ...uintptr) int {
	in := instr{kind: kind, out: uint16(out)}
	copy(in.a[:], args)
	return p.emit(in)
}

// ignore lets instruction i go on, with the next one, after these errors.
func (p *program) ignore(i int, errnos ...unix.Errno) {
	for n, e := range errnos {
		p.code[i].skip[n] = uint16(e)
	}
}

// detail adds to the label of instruction i.
func (p *program) detail(i int, format string, args ...any) {
	p.labels[i] += ": " + fmt.Sprintf(format, args...)
}

// here is the number of the next instruction, as a jump target.
func (p *program) here() uint32 { return uint32(len(p.code)) }

// land makes instructions jump to here; -1 stands for none.
func (p *program) land(jumps ...int) {
	for _, i := range jumps {
		if i >= 0 {
			p.code[i].target = p.here()
		}
	}
}

func (p *program) close(slots ...int) {
	for _, s := range slots {
		p.ignore(p.sys(unix.SYS_CLOSE, fd(s)), unix.EBADF)
	}
}

// resolve opens path below the slot root, made as mode says, into out.
func (p *program) resolve(out, root int, path string, mode, like int, more uint64) int {
	for len(path) > 0 && path[0] == '/' {
		path = path[1:]
	}
	if path == "" {
		path = "."
	}
	if len(path) >= pathMax {
		p.label += ": path is longer than the kernel's limit of 4096 bytes"
	}
	return p.do(doResolve, out, uintptr(root), p.mem.str(path), uintptr(mode), uintptr(like), uintptr(more))
}

// setattr changes a mount.
func (p *program) setattr(mount int, flags uintptr, attr unix.MountAttr) int {
	return p.sys(unix.SYS_MOUNT_SETATTR, fd(mount), p.str(""), val(unix.AT_EMPTY_PATH|flags), arg{v: put(p.mem, attr)},
		val(unsafe.Sizeof(attr)))
}

// move attaches a mount.
func (p *program) move(mount, dest int) int {
	return p.sys(unix.SYS_MOVE_MOUNT, fd(mount), p.str(""), fd(dest), p.str(""),
		val(unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
}

// wait reads the parent's byte. A parent that is gone ends the child without a word.
func (p *program) wait() {
	p.short(p.sys(unix.SYS_READ, fd(slotSync), arg{v: uintptr(p.mem.alloc(1))}, val(1)))
}

// short lets a result other than 1 of instruction i end the process: the other side is gone.
func (p *program) short(i int) { p.code[i].short, p.code[i].want = 1, 1 }

// tell writes a record.
func (p *program) tell(r record) {
	p.due[r.kind]++
	p.sys(unix.SYS_WRITE, fd(slotSync), arg{v: put(p.mem, r)}, val(unsafe.Sizeof(r)))
}

// message prepares a sendmsg of a record with one descriptor.
func (p *program) message(r record) (msghdr, control uintptr) {
	iov := put(p.mem, unix.Iovec{Base: (*byte)(p.pointer(put(p.mem, r)))})
	(*unix.Iovec)(p.pointer(iov)).SetLen(int(unsafe.Sizeof(r)))
	space := unix.CmsgSpace(4)
	ctl := p.mem.alloc(uintptr(space))
	h := (*unix.Cmsghdr)(ctl)
	h.Level, h.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
	h.SetLen(unix.CmsgLen(4))
	hdr := unix.Msghdr{Iov: (*unix.Iovec)(p.pointer(iov)), Control: (*byte)(ctl)}
	hdr.SetControllen(space)
	hdr.SetIovlen(1)
	return put(p.mem, hdr), uintptr(ctl) + uintptr(unix.CmsgLen(0))
}

// pointer turns an address in the arena back to a pointer.
func (p *program) pointer(addr uintptr) unsafe.Pointer {
	return unsafe.Add(p.mem.base, addr-uintptr(p.mem.base))
}

// finish lays the program out in the arena.
func (p *program) finish() *machine {
	m := (*machine)(p.mem.alloc(unsafe.Sizeof(machine{})))
	code := p.mem.alloc(uintptr(len(p.code)) * unsafe.Sizeof(instr{}))
	copy(unsafe.Slice((*instr)(code), len(p.code)), p.code)
	m.code, m.count, m.start = code, uintptr(len(p.code)), 0
	copy(m.slots[:], p.slots)
	m.relay = slotSync
	return m
}
