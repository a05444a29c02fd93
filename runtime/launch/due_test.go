package launch

import (
	"os"
	"os/exec"
	"testing"
)

func TestDue(t *testing.T) {
	d := due{recordPID: 1, recordCopyUp: 1}
	for _, c := range []struct {
		kind       uint32
		descriptor bool
		want       bool
	}{
		{recordError, false, true},
		{recordError, true, false},
		{recordPID, false, true},
		{recordPID, false, false}, // one only
		{recordCopyUp, true, true},
		{recordCopyUp, true, false},
		{recordListener, true, false},
		{recordStage, false, false},
		{recordKinds, false, false},
		{0, false, false},
	} {
		if got := d.take(c.kind, c.descriptor); got != c.want {
			t.Errorf("take(%d, %v) = %v", c.kind, c.descriptor, got)
		}
	}
	d = due{recordPID: 1, recordSender: 1}
	if d.take(recordPID, true) || d.take(recordSender, false) {
		t.Error("a descriptor too many or too few is taken")
	}
}

func TestOwnChild(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !ownChild(cmd.Process.Pid) {
		t.Error("a child is not one")
	}
	cmd.Process.Kill()
	cmd.Wait()
	for _, pid := range []int{cmd.Process.Pid, os.Getppid(), os.Getpid(), 1} {
		if ownChild(pid) {
			t.Errorf("process %d is not a child", pid)
		}
	}
}
