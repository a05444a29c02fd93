package launch

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// homeMax is the longest HOME=… with its NUL.
const homeMax = 1024

// passwdMax is how many buffers of an image's /etc/passwd are read: 1 MiB (CVE-2025-4437).
const passwdMax = 256

// passwd is how far the reading of a line has come.
type passwd struct {
	field uintptr
	uid   uintptr
	bad   bool // the uid is no number, or the directory does not fit
	some  bool // a digit was seen
	n     uintptr
}

// home looks up the home directory of a user by number, as login does: passwd(5), the sixth field. An image without the user,
// or with something else in the file's place (CVE-2024-9676), gives "/".
//
//go:nosplit
//go:norace
func home(m *machine, in *instr, root uintptr) uintptr {
	out := word(in, 1)
	*(*[5]byte)(out) = [5]byte{'H', 'O', 'M', 'E', '='}
	slash(out)
	m.how.Flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	m.how.Resolve = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	fd, e := openat2(m, root, in.a[3])
	if e != 0 {
		return 0
	}
	// Files of the kernel look regular too, and reading some of them changes the host (/proc/kmsg).
	if stat(m, fd) == 0 && m.statx.Mode&unix.S_IFMT == unix.S_IFREG && !ofKernel(m, fd) && !search(fd, in) {
		slash(out)
	}
	closeFD(fd)
	return 0
}

// ofKernel tells whether a file is one of procfs or sysfs; what cannot be looked at counts as such.
//
//go:nosplit
//go:norace
func ofKernel(m *machine, fd uintptr) bool {
	return fstatfs(m, fd) != 0 || uintptr(m.statfs.Type) == procMagic || uintptr(m.statfs.Type) == sysMagic
}

// sysMagic is SYSFS_MAGIC.
const sysMagic = 0x62656572

//go:nosplit
//go:norace
func slash(out unsafe.Pointer) {
	*(*byte)(unsafe.Add(out, 5)) = '/'
	*(*byte)(unsafe.Add(out, 6)) = 0
}

// search reads the file and tells whether the user was found; the directory is behind HOME= then.
//
//go:nosplit
//go:norace
func search(fd uintptr, in *instr) bool {
	var line passwd
	for range passwdMax {
		n, _, e := syscall.RawSyscall6(unix.SYS_READ, fd, in.a[4], pathMax, 0, 0, 0)
		if e != 0 {
			return false
		}
		if n == 0 {
			return line.end(in)
		}
		for i := uintptr(0); i < n; i++ {
			c := *(*byte)(unsafe.Add(word(in, 4), i))
			if c != '\n' {
				line.add(in, c)
				continue
			}
			if line.end(in) {
				return true
			}
			line = passwd{}
		}
	}
	return false
}

//go:nosplit
//go:norace
func (l *passwd) add(in *instr, c byte) {
	switch {
	case c == ':':
		l.field++
	case l.field == 2:
		if c < '0' || c > '9' || l.uid > (1<<32-1)/10 {
			l.bad = true
			return
		}
		l.uid, l.some = l.uid*10+uintptr(c-'0'), true
	case l.field == 5:
		if l.n >= homeMax-6 {
			l.bad = true
			return
		}
		*(*byte)(unsafe.Add(word(in, 1), 5+l.n)) = c
		l.n++
	}
}

//go:nosplit
//go:norace
func (l *passwd) end(in *instr) bool {
	if l.field < 5 || l.bad || !l.some || l.uid != in.a[2] || l.n == 0 {
		return false
	}
	*(*byte)(unsafe.Add(word(in, 1), 5+l.n)) = 0
	return true
}
