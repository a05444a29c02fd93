package launch

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
)

// procMagic is PROC_SUPER_MAGIC.
const procMagic = 0x9fa0

// Marks are mounts whose identity the machine remembers.
const (
	markRoot = iota
	markProc // what the configuration mounted on /proc
	markSys
	markDev // the file system that the container mounted on /dev; a bind of the host's is not marked
	marks
	noMark = -1
)

// placeNames are the directories of the root file system that the marks are for.
var placeNames = [marks]string{markProc: "proc", markSys: "sys", markDev: "dev"}

// markOf is the mark of what is mounted on a place.
func markOf(at plan.Place) int {
	switch at {
	case plan.OnProc:
		return markProc
	case plan.OnSys:
		return markSys
	case plan.OnDev:
		return markDev
	}
	return noMark
}

// below is the mark of the mount that a place lies in, when it is named so.
func below(at plan.Place) int {
	switch at {
	case plan.OnProc, plan.InProc:
		return markProc
	case plan.OnSys, plan.InSys:
		return markSys
	}
	return noMark
}

// ordinary tells whether a place must be a directory of the root itself.
func ordinary(at plan.Place) bool { return at == plan.OnProc || at == plan.OnSys }

// keep remembers the mount in a slot as what is on a place; 0: something that is not the container's own is there.
func (p *program) keep(at plan.Place, mount int) {
	mark := markOf(at)
	if mark == noMark {
		return
	}
	p.places[mark] = mount
	if mount == 0 {
		p.do(doUnmark, noSlot, 0, uintptr(mark))
		return
	}
	p.do(doMark, noSlot, uintptr(mount), uintptr(mark))
}

// destination opens a mount point into slotT2 and returns the instruction that does. What is named to be in /proc or /sys is
// resolved beneath the mount that was made there. What is named otherwise may not lead there, whatever links the image has: the
// file that was opened is looked at, not its path.
func (p *program) destination(dest string, at plan.Place, mode, like int, noSymlink bool) int {
	more := uint64(0)
	if noSymlink {
		more = unix.RESOLVE_NO_SYMLINKS
	}
	switch {
	case at == plan.InProc && p.places[markProc] != 0:
		return p.resolve(slotT2, p.places[markProc], strings.TrimPrefix(dest, "/proc"), resolveOpen, 0, unix.RESOLVE_NO_SYMLINKS)
	case at == plan.InProc:
		return p.resolve(slotT2, slotRoot, dest, mode, like, unix.RESOLVE_NO_SYMLINKS)
	case at == plan.InSys && p.places[markSys] != 0:
		return p.resolve(slotT2, p.places[markSys], strings.TrimPrefix(dest, "/sys"), mode, like, more)
	}
	opened := p.resolve(slotT2, slotRoot, dest, mode, like, more)
	if !ordinary(at) {
		p.outside(slotT2, "the destination")
	}
	return opened
}

// outside refuses a file that is the root, or lies in the container's /proc or /sys, or in another procfs but on top of it: an
// engine may bind the host's /proc below a bind of the host's root.
func (p *program) outside(slot int, what string) {
	p.detail(p.do(doNotRoot, noSlot, uintptr(slot)), "%s is the root file system itself", what)
	p.detail(p.do(doNotIn, noSlot, markProc), "%s leads into /proc", what)
	p.detail(p.do(doNotIn, noSlot, markSys), "%s leads into /sys", what)
	p.detail(p.do(doNotProc, noSlot, uintptr(slot)), "%s leads into /proc", what)
}

// stillThere compares what the root file system has at a place with the mount that was made there.
func (p *program) stillThere(o plan.StillThere) {
	mark := markOf(o.At)
	if p.places[mark] == 0 {
		return
	}
	p.resolve(slotT0, slotRoot, placeNames[mark], resolveOpen, 0, unix.RESOLVE_NO_SYMLINKS)
	same := p.do(doIfIn, noSlot, slotT0, uintptr(mark))
	p.detail(p.do(doFail, noSlot, uintptr(unix.ESTALE)), "the directory was exchanged while the container was made")
	p.land(same)
	p.close(slotT0)
}
