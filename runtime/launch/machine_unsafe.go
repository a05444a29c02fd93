package launch

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Kinds of instructions.
const (
	doSyscall   = iota
	doJump      // to target
	doResolve   // a0 root slot, a1 path, a2 resolveMode, a3 slot that a made file is like, a4 more RESOLVE_ flags
	doIfDir     // a0 slot: jump to target when it is a directory
	doIfSlot    // a0 slot: jump to target when its value is not 0
	doSet       // a0 value: into the out slot
	doCheck     // a0 slot, a1 file type, a2 major, a3 minor
	doMode      // a0 slot of a directory: its mode goes to the mount in slot a1
	doFind      // a0 vector of paths, a1 their number, a2 errno that wins: into slotFound
	doExec      // a0 vector of paths, a1 argv, a2 envp: the path with the number in slotFound
	doSend      // a0 slot of the descriptor to send, a1 msghdr, a2 its control buffer, a3 slot of the socket
	doReceive   // a0 slot of the socket, a1 msghdr, a2 its control buffer, a3 the header's own copy: a descriptor into out
	doOwn       // a0 descriptor, a1 uid, a2 1: a terminal of the container's
	doClone     // a0 flags of clone(2), a1 where the kernel puts the pid: the caller tells the pid and exits
	doMask      // the source of the next masked directory into out
	doType      // a0 slot: fail with a1 when the file system type is not a2
	doMark      // a0 slot of a mount, a1 mark
	doUnmark    // a1 mark
	doNotRoot   // a0 slot: fail when it is the root's own directory
	doNotIn     // a0 mark: fail when the file that was looked at last is in that mount
	doNotProc   // a0 slot, looked at last: fail when it is in a procfs, unless it is the root of one that is not the container's
	doIfIn      // a0 slot, a1 mark: jump to target when it is in that mount
	doIfMounted // a0 slot: jump to target when it is the root of a mount
	doFail      // with a0
	doIfAtime   // a0 slot of a mount, a1 MOUNT_ATTR__ATIME value, all bits for relatime: jump to target when it has that
	doRelay     // errors go to slot a0 from here on
	doHome      // a0 root slot, a1 where HOME=… goes, a2 uid, a3 path of passwd, a4 buffer of pathMax bytes
	doListener  // see listener_unsafe.go: a0 and a1 clone_args, a2 msghdr, a3 its control buffer, a4 the shared word, a5 where the kernel puts the pidfd
	doFilter    // a0 flags, a1 sock_fprog, a2 the shared word, which gets 1 + the listener
	doForget    // the memory from a0 to a1, but for the machine's own stack
	doClear     // the bits a1 of the 32-bit number at a0
	doSameKind  // a0 and a1 slots: ENOTDIR when one is a directory and the other not
	doZero      // a0 address, a1 number of bytes that become 0
	doIfByte    // a0 address, a1 value: jump to target when the byte there is it
	doCloseBut  // a0 first descriptor, a1 vector of slots, a2 their number: all others are closed
	doDone      // exit without a word
)

// How doResolve treats what is missing.
const (
	resolveOpen = iota // it is an error
	resolveDir         // made, as directories
	resolveFile        // made, an empty file at the end
	resolveLike        // made, a directory or a file like what is in slot a3
)

// anyErrno stands for every errno.
const anyErrno = 0xffff

// noSlot is an out that is not kept.
const noSlot = 0xffff

// instr is one instruction; a program is an array of them in the arena.
type instr struct {
	kind   uint16
	out    uint16    // slot for the result
	slots  uint16    // bit i: a[i] is a slot whose value is meant
	short  uint16    // bit 0: a result other than want is an end of file: the other side is gone
	skip   [3]uint16 // errno values that are no error; anyErrno first: all of them
	value  uint16    // for the record of a failure
	target uint32    // where to go on such an errno, or when a condition holds; 0 is the next instruction
	want   uint32
	nr     uintptr
	a      [6]uintptr
}

const (
	maxSlots = 1024
	pathMax  = 4096
)

// machine is the state of a running program. It lies in the arena.
type machine struct {
	code     unsafe.Pointer // of instr
	count    uintptr
	start    uintptr // the first instruction
	fail     uintptr // 1 + the instruction that fails with EIO without being run: for fault injection
	relay    uintptr // slot to which errors are reported
	maskUsed uintptr
	made     uintptr       // 1: the last doResolve has made what it opened
	marks    [marks]uint64 // mount ids; 0: none
	rootFile uint64        // inode of the root's directory
	record   record
	how      unix.OpenHow
	statx    unix.Statx_t
	statfs   unix.Statfs_t
	slots    [maxSlots]uintptr
	path     [pathMax]byte
	link     [pathMax]byte
	joined   [pathMax]byte
}

// record is what the child sends.
type record struct {
	kind  uint32
	index uint32 // of the instruction
	errno uint32
	value uint32
}

// Values that mark the failures of the last steps for start, which has no plan to look them up in.
const (
	valueExec = 1 + iota
	valueSeccomp
)

// Kinds of records.
const (
	recordError = 1 + iota
	recordStage
	recordPID
	recordDescriptor
	recordCopyUp
	recordSender
	recordListener
	recordNamespace // value is an index of heldNamespaces
	recordKinds
)

// run executes the program. It does not return.
//
//go:nosplit
//go:norace
func run(m *machine) {
	for pc := m.start; pc < m.count; {
		in := (*instr)(unsafe.Add(m.code, pc*unsafe.Sizeof(instr{})))
		next := pc + 1
		var errno, result uintptr
		if m.fail == pc+1 {
			errno = uintptr(unix.EIO)
		} else if in.kind == doSyscall {
			result, errno = call(m, in)
			if errno == 0 && in.short != 0 && result != uintptr(in.want) {
				if in.target == 0 {
					exit(1) // the parent is gone: nobody to tell
				}
				next = uintptr(in.target)
			}
		} else if in.kind == doResolve { // not in special: its stack is short
			result, errno = resolve(m, in, m.slots[in.a[0]&(maxSlots-1)])
		} else {
			var jump bool
			result, errno, jump = special(m, in)
			if jump {
				next = uintptr(in.target)
			}
		}
		if errno != 0 {
			if in.skip[0] == anyErrno || errno == uintptr(in.skip[0]) || errno == uintptr(in.skip[1]) || errno == uintptr(in.skip[2]) {
				if in.target != 0 {
					next = uintptr(in.target)
				}
				pc = next
				continue
			}
			if in.kind == doSyscall && errno == uintptr(unix.EINTR) {
				continue
			}
			fail(m, pc, errno)
		}
		if in.out != noSlot {
			m.slots[in.out&(maxSlots-1)] = result
		}
		pc = next
	}
	exit(0)
}

//go:nosplit
//go:norace
func call(m *machine, in *instr) (uintptr, uintptr) {
	a := in.a
	if in.slots != 0 {
		for i := range a {
			if in.slots&(1<<i) != 0 {
				a[i] = m.slots[in.a[i]&(maxSlots-1)]
			}
		}
	}
	r, _, errno := syscall.RawSyscall6(in.nr, a[0], a[1], a[2], a[3], a[4], a[5])
	return r, uintptr(errno)
}

//go:nosplit
//go:norace
func fail(m *machine, pc, errno uintptr) {
	in := (*instr)(unsafe.Add(m.code, pc*unsafe.Sizeof(instr{})))
	m.record = record{kind: recordError, index: uint32(pc), errno: uint32(errno), value: uint32(in.value)}
	syscall.RawSyscall6(unix.SYS_WRITE, m.slots[m.relay&(maxSlots-1)], uintptr(unsafe.Pointer(&m.record)), unsafe.Sizeof(m.record), 0, 0, 0)
	exit(1)
}

//go:nosplit
//go:norace
func exit(code uintptr) {
	syscall.RawSyscall6(unix.SYS_EXIT_GROUP, code, 0, 0, 0, 0, 0)
	for { // a seccomp filter may forbid even that; nothing forbids to crash
		syscall.RawSyscall6(unix.SYS_EXIT, code, 0, 0, 0, 0, 0)
		*(*byte)(nil) = 0
	}
}

//go:nosplit
//go:norace
func special(m *machine, in *instr) (result, errno uintptr, jump bool) {
	slot := m.slots[in.a[0]&(maxSlots-1)]
	switch in.kind {
	case doJump:
		return 0, 0, true
	case doIfDir:
		if errno = stat(m, slot); errno == 0 {
			jump = m.statx.Mode&unix.S_IFMT == unix.S_IFDIR
		}
	case doIfSlot:
		jump = slot != 0
	case doSet:
		result = in.a[0]
	case doCheck:
		errno = check(m, in, slot)
	case doMode:
		errno = copyMode(m, slot, m.slots[in.a[1]&(maxSlots-1)])
	case doFind:
		result, errno = find(m, in)
	case doExec:
		path := *(*uintptr)(unsafe.Add(word(in, 0), m.slots[slotFound]*unsafe.Sizeof(uintptr(0))))
		_, _, e := syscall.RawSyscall6(unix.SYS_EXECVE, path, in.a[1], in.a[2], 0, 0, 0)
		errno = uintptr(e)
	case doSend:
		*(*int32)(word(in, 2)) = int32(slot)
		_, _, e := syscall.RawSyscall6(unix.SYS_SENDMSG, m.slots[in.a[3]&(maxSlots-1)], in.a[1], unix.MSG_NOSIGNAL, 0, 0, 0)
		errno = uintptr(e)
	case doReceive:
		result, errno = receiveFD(m, in, slot)
	case doOwn:
		errno = own(m, in)
	case doClone:
		errno = cloneChild(m, in)
	case doMask:
		result, errno = maskSource(m)
	case doType, doNotProc:
		errno = checkType(m, in, slot)
	case doMark, doUnmark, doNotRoot, doNotIn, doIfIn, doIfMounted:
		errno, jump = identify(m, in, slot)
	case doIfAtime:
		errno, jump = hasAtime(m, in, slot)
	case doFail:
		errno = in.a[0]
	case doRelay:
		m.relay = in.a[0]
	case doHome:
		errno = home(m, in, slot)
	case doListener:
		result, errno = listenerSender(m, in)
	case doFilter:
		errno = loadFilter(in)
	case doForget:
		errno = forget(in)
	case doClear:
		*(*uint32)(word(in, 0)) &^= uint32(in.a[1])
	case doSameKind:
		errno = sameKind(m, slot, m.slots[in.a[1]&(maxSlots-1)])
	case doZero:
		for i := uintptr(0); i < in.a[1]; i++ {
			*(*byte)(unsafe.Add(word(in, 0), i)) = 0
		}
	case doIfByte:
		jump = uintptr(*(*byte)(word(in, 0))) == in.a[1]
	case doCloseBut:
		errno = closeBut(m, in)
	case doDone:
		exit(0)
	}
	return result, errno, jump
}

// word is argument i as a pointer into the arena.
//
//go:nosplit
//go:norace
func word(in *instr, i uintptr) unsafe.Pointer {
	return *(*unsafe.Pointer)(unsafe.Add(unsafe.Pointer(&in.a), i*unsafe.Sizeof(uintptr(0))))
}
