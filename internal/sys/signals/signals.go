// Package signals starts child processes with signals as if nobody had changed them: all at their defaults, none blocked.
package signals

import (
	"fmt"
	"os"
	ossignal "os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/tare-oci/tare/internal/sys/scheduler"
)

// Default has children that the calling goroutine starts before restore is called begin with every signal at its default action
// and none blocked, and with the timer slack of this process's caller, whatever this process's own caller ignores or blocks. The goroutine is bound to its thread meanwhile.
func Default() (restore func(), err error) {
	ignored, err := ignored()
	if err != nil {
		return nil, err
	}
	runtime.LockOSThread()
	scheduler.RestoreSlack()
	mask, err := setMask(sigset{})
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	caught := make(chan os.Signal, 1)
	var reset []syscall.Signal
	pipe := false // SIGPIPE was ignored
	for _, sig := range ignored {
		if sig == syscall.SIGHUP || sig == syscall.SIGINT || sig == syscall.SIGPIPE {
			// What this process catches is at its default in a child, and does no harm here meanwhile: another goroutine may
			// write to a pipe that a child has closed.
			ossignal.Notify(caught, sig)
			pipe = pipe || sig == syscall.SIGPIPE
			continue
		}
		if setIgnored(sig, false) == nil {
			reset = append(reset, sig)
		}
	}
	return func() {
		ossignal.Stop(caught)
		if pipe {
			ossignal.Ignore(syscall.SIGPIPE)
		}
		for _, sig := range reset {
			setIgnored(sig, true)
		}
		setMask(mask)
		runtime.UnlockOSThread()
	}, nil
}

// ignored returns the signals that this process ignores, which a child would ignore too.
func ignored() ([]syscall.Signal, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(string(status), "\nSigIgn:")
	line, _, _ := strings.Cut(rest, "\n")
	set, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	if err != nil {
		return nil, fmt.Errorf("read ignored signals: %w", err)
	}
	var list []syscall.Signal
	for n := range 64 {
		if set&(1<<n) != 0 {
			list = append(list, syscall.Signal(n+1))
		}
	}
	return list, nil
}
