package launch

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/internal/sys/prefault"
)

// arenaSize is the address space of a program with all its strings; only what is used takes memory.
const arenaSize = 16 << 20

// arenaUsed is about what the program of a usual container takes.
const arenaUsed = 56 << 10

// arena is memory outside of Go's heap: it does not move, the garbage collector does not know it, and a waiting child keeps
// nothing else.
type arena struct {
	base unsafe.Pointer
	used uintptr
	page unsafe.Pointer // see sharedWord; nil: not needed
}

func newArena() (*arena, error) {
	base, err := unix.MmapPtr(-1, 0, nil, arenaSize, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map memory for the child's program: %w", err)
	}
	prefault.Range(unsafe.Slice((*byte)(base), arenaSize), arenaUsed)
	return &arena{base: base}, nil
}

func (a *arena) free() {
	if a.base != nil {
		unix.MunmapPtr(a.base, arenaSize)
		a.base = nil
	}
	if a.page != nil {
		unix.MunmapPtr(a.page, uintptr(os.Getpagesize()))
		a.page = nil
	}
}

// sharedWord is a word that the child shares with the processes that it clones; 0 at first. It lies outside of the arena.
func (a *arena) sharedWord() (uintptr, error) {
	if a.page == nil {
		page, err := unix.MmapPtr(-1, 0, nil, uintptr(os.Getpagesize()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
		if err != nil {
			return 0, fmt.Errorf("map memory that the child shares: %w", err)
		}
		a.page = page
	}
	return uintptr(a.page), nil
}

// clonedAt is where in the shared page the kernel puts the number of the child that an intermediate process clones,
// before the child runs.
const clonedAt = 64

// cloned is that number, 0 before.
func (a *arena) cloned() int {
	if a.page == nil {
		return 0
	}
	return int(atomic.LoadInt32((*int32)(unsafe.Add(a.page, clonedAt))))
}

// errFull is an arena that cannot hold the program.
var errFull = fmt.Errorf("the configuration is too large: its plan takes more than %d MiB", arenaSize>>20)

// alloc reserves n zeroed bytes, aligned to 16. It panics with errFull, which build recovers.
func (a *arena) alloc(n uintptr) unsafe.Pointer {
	a.used = (a.used + 15) &^ 15
	if n > arenaSize-a.used {
		panic(errFull)
	}
	p := unsafe.Add(a.base, a.used)
	a.used += n
	return p
}

// bytes copies b into the arena.
func (a *arena) bytes(b []byte) uintptr {
	p := a.alloc(uintptr(len(b)) + 1)
	copy(unsafe.Slice((*byte)(p), len(b)), b)
	return uintptr(p)
}

// str copies s with a NUL behind it.
func (a *arena) str(s string) uintptr {
	p := a.alloc(uintptr(len(s)) + 1)
	copy(unsafe.Slice((*byte)(p), len(s)), s)
	return uintptr(p)
}

// words copies machine words.
func (a *arena) words(w []uintptr) uintptr {
	p := a.alloc(uintptr(len(w)+1) * unsafe.Sizeof(uintptr(0)))
	copy(unsafe.Slice((*uintptr)(p), len(w)), w)
	return uintptr(p)
}

// strings makes a NULL-ended vector of C strings.
func (a *arena) strings(list []string) uintptr {
	w := make([]uintptr, len(list)+1)
	for i, s := range list {
		w[i] = a.str(s)
	}
	return a.words(w)
}

// put copies a value into the arena.
func put[T any](a *arena, v T) uintptr {
	p := (*T)(a.alloc(unsafe.Sizeof(v)))
	*p = v
	return uintptr(unsafe.Pointer(p))
}
