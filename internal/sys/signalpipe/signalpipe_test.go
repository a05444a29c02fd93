package signalpipe

import (
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestCatch(t *testing.T) {
	signal.Ignore(syscall.SIGHUP)
	defer signal.Reset(syscall.SIGHUP)
	before := ignoredNow(t)
	p, err := Catch()
	if err != nil {
		t.Fatal(err)
	}
	for sig := syscall.Signal(1); sig <= 64; sig++ {
		if skipped>>sig&1 != 0 {
			continue
		}
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		if got, err := p.Next(); got != sig || err != nil {
			t.Errorf("signal %d: got %d, %v", sig, got, err)
		}
	}
	if err := exec.Command("/bin/true").Run(); err != nil {
		t.Error(err)
	}
	if got, err := p.Next(); got != syscall.SIGCHLD || err != nil {
		t.Errorf("end of a child: got %d, %v", got, err)
	}
	if !faults() {
		t.Error("a fault of the program does not panic meanwhile")
	}
	p.Close()
	if !faults() {
		t.Error("a fault of the program does not panic afterwards")
	}
	syscall.Kill(os.Getpid(), syscall.SIGHUP)
	// PIPE stays ignored; what the caller of the tests ignores is in both.
	if after, want := ignoredNow(t), before|1<<(syscall.SIGPIPE-1); after != want {
		t.Errorf("ignored signals are %#x, want %#x as before", after, want)
	}
}

// ignoredNow returns the signals that this process ignores, as the kernel shows them: bit n-1 is signal n.
func ignoredNow(t *testing.T) uint64 {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "SigIgn:\t")
	line, _, _ := strings.Cut(rest, "\n")
	set, err := strconv.ParseUint(line, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// faults tells whether a nil pointer becomes a panic.
func faults() (ok bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { ok = recover() != nil }()
	var p *Pipe
	return len(p.pending) > 0
}
