package pidfd

import (
	"context"
	"errors"
	"os/exec"
	"syscall"
	"testing"
)

func TestSignalAndWait(t *testing.T) {
	c := exec.Command("sleep", "1000")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Process.Kill()
	p, err := Open(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	done, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.Wait(done); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait for a live process = %v", err)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err == nil || c.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("process ended with %v", err)
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("Signal to a reaped process = %v, want ESRCH", err)
	}
	if _, err := Open(c.Process.Pid); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("Open of a reaped process = %v, want ESRCH", err)
	}
}
