package signals

import (
	"os"
	"os/exec"
	ossignal "os/signal"
	"strings"
	"syscall"
	"testing"
)

// childSignals returns what a child of this process ignores and blocks.
func childSignals(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("grep", "-E", "Sig(Blk|Ign)", "/proc/self/status").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

// ignoredNow returns the signals that this process ignores, as the kernel shows them.
func ignoredNow(t *testing.T) string {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "SigIgn:\t")
	line, _, _ := strings.Cut(rest, "\n")
	return line
}

func TestDefault(t *testing.T) {
	ossignal.Ignore(syscall.SIGHUP)
	defer ossignal.Reset(syscall.SIGHUP)
	for _, sig := range []syscall.Signal{syscall.SIGTSTP, 34, 64} {
		if err := setIgnored(sig, true); err != nil {
			t.Fatal(err)
		}
		defer setIgnored(sig, false)
	}
	before := ignoredNow(t) // what the caller of the tests ignores is in it too
	all := sigset{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	done := make(chan struct{})
	go func() {
		defer close(done)
		restore, err := Default()
		if err != nil {
			t.Error(err)
			return
		}
		const none = "SigBlk: 0000000000000000 SigIgn: 0000000000000000"
		if got := childSignals(t); got != none {
			t.Errorf("child has %s", got)
		}
		// With everything blocked before.
		if _, err := setMask(all); err != nil {
			t.Error(err)
		}
		again, err := Default()
		if err != nil {
			t.Error(err)
			return
		}
		if got := childSignals(t); got != none {
			t.Errorf("child has %s after a mask", got)
		}
		again()
		if mask, _ := setMask(sigset{}); mask == (sigset{}) {
			t.Error("the mask is not restored")
		}
		restore()
	}()
	<-done
	if after := ignoredNow(t); after != before {
		t.Errorf("ignored signals are %s, want %s as before", after, before)
	}
}
