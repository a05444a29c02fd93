package signals

import (
	"os/exec"
	ossignal "os/signal"
	"slices"
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

func TestDefault(t *testing.T) {
	ossignal.Ignore(syscall.SIGHUP)
	defer ossignal.Reset(syscall.SIGHUP)
	for _, sig := range []syscall.Signal{syscall.SIGTSTP, 34, 64} {
		if err := setIgnored(sig, true); err != nil {
			t.Fatal(err)
		}
		defer setIgnored(sig, false)
	}
	before, err := ignored() // what the caller of the tests ignores is in it too
	if err != nil {
		t.Fatal(err)
	}
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
	if after, err := ignored(); err != nil || !slices.Equal(after, before) {
		t.Errorf("ignored signals are %v, %v, want %v as before", after, err, before)
	}
}
