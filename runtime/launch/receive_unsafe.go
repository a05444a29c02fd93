package launch

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receive reads one record and the descriptor that came with it, -1 when none. io.EOF is the other side's end.
func receive(sync int) (r record, descriptor int, err error) {
	descriptor = -1
	buf := unsafe.Slice((*byte)(unsafe.Pointer(&r)), unsafe.Sizeof(r))
	control := make([]byte, unix.CmsgSpace(4))
	for {
		n, cn, _, _, err := unix.Recvmsg(sync, buf, control, unix.MSG_CMSG_CLOEXEC|unix.MSG_WAITALL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			if err == unix.ECONNRESET {
				err = io.EOF
			}
			return r, -1, err
		}
		if n == 0 {
			return r, -1, io.EOF
		}
		if n != len(buf) {
			return r, -1, fmt.Errorf("read record: %w", io.ErrUnexpectedEOF)
		}
		if cn == 0 {
			return r, -1, nil
		}
		messages, err := unix.ParseSocketControlMessage(control[:cn])
		if err != nil || len(messages) != 1 {
			return r, -1, fmt.Errorf("read descriptor: %w", unix.EBADMSG)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			return r, -1, fmt.Errorf("read descriptor: %w", unix.EBADMSG)
		}
		return r, fds[0], nil
	}
}

func (a *cloneArgs) setPIDFD(fd *int32) { a.pidfd = uint64(uintptr(unsafe.Pointer(fd))) }

// forgettable lists this process's private anonymous memory but the arena: Go's heap and stacks, of which a waiting child needs
// only the stack on which it runs. It cuts that out itself, because this function's may move before the clone.
func forgettable(mem *arena) [][2]uintptr {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil // then the child keeps a little more
	}
	defer f.Close()
	keep := [][2]uintptr{{uintptr(mem.base), uintptr(mem.base) + arenaSize}}
	var out [][2]uintptr
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 || fields[1] != "rw-p" || fields[4] != "0" {
			continue
		}
		if len(fields) > 5 && !strings.HasPrefix(fields[5], "[anon") {
			continue // [stack], [heap] of nobody, [vvar]
		}
		var lo, hi uintptr
		if _, err := fmt.Sscanf(fields[0], "%x-%x", &lo, &hi); err != nil {
			continue
		}
		out = append(out, without([2]uintptr{lo, hi}, keep)...)
	}
	return out
}

// without cuts ranges out of one.
func without(r [2]uintptr, cuts [][2]uintptr) [][2]uintptr {
	out := [][2]uintptr{r}
	for _, c := range cuts {
		var rest [][2]uintptr
		for _, p := range out {
			if c[1] <= p[0] || c[0] >= p[1] {
				rest = append(rest, p)
				continue
			}
			if p[0] < c[0] {
				rest = append(rest, [2]uintptr{p[0], c[0]})
			}
			if c[1] < p[1] {
				rest = append(rest, [2]uintptr{c[1], p[1]})
			}
		}
		out = rest
	}
	return out
}
