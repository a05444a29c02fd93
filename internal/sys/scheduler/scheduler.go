// Package scheduler adapts Go's scheduler to a process that lives for some milliseconds and has one goroutine.
package scheduler

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// slack is what RestoreSlack sets, in nanoseconds; 0: nothing.
var slack uintptr

// SetSlack tells that this program's entry has given its first thread a large timer slack (prctl(2), PR_SET_TIMERSLACK), and what it
// was before. The thread of Go's monitor, which would wake each 20 µs, inherits the large one.
func SetSlack(before uintptr) {
	slack = before
	RestoreSlack()
}

// Slack returns the timer slack of this program's caller in nanoseconds, 0 if no thread has another one.
//
//go:nosplit
func Slack() uintptr { return slack }

// RestoreSlack gives the calling thread, and whatever it starts, the timer slack of this program's caller.
func RestoreSlack() {
	if slack != 0 {
		unix.Prctl(unix.PR_SET_TIMERSLACK, slack, 0, 0, 0) // cannot fail
	}
}

// concurrent is enough for the streams of a process, its terminal, signals and whatever else waits at the same time.
const concurrent = 8

// Concurrent prepares for goroutines that work at the same time. With one processor of Go's, a goroutine that blocks in a system call
// keeps the others waiting until the monitor finds out, after up to 10 ms. Where there are several already it does nothing.
func Concurrent() {
	if runtime.GOMAXPROCS(0) == 1 {
		runtime.GOMAXPROCS(concurrent)
	}
}

// ProcessorTime returns the time that all threads of this process have run since it was made, by fork(2): what ran
// before an execve(2) counts too. 0 if the kernel does not tell.
func ProcessorTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
