package procfs

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/tare-oci/tare/internal/procfs/procfstest"
)

func TestParseStat(t *testing.T) {
	line := "77 (a) Z (b) S 1 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1000 2 3\n"
	if s, err := parseStat([]byte(line)); err != nil || s.State != 'S' || s.StartTime != 12345 || s.Forked {
		t.Errorf("parseStat = %+v, %v", s, err)
	}
	for _, bad := range []string{"", "77 a S", "77 (a) S 1 2"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("parseStat(%q) gives no error", bad)
		}
	}
}

func TestForked(t *testing.T) {
	s, err := ReadStat(procfstest.Forked(t))
	if err != nil || !s.Forked {
		t.Errorf("a process that has only forked: %+v, %v", s, err)
	}
	if s, err = ReadStat(os.Getpid()); err != nil || s.Forked {
		t.Errorf("a process that has executed a program: %+v, %v", s, err)
	}
}

func TestRunning(t *testing.T) {
	s, err := ReadStat(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if _, alive := Running(os.Getpid(), s.StartTime); !alive {
		t.Error("we are not alive")
	}
	if _, alive := Running(os.Getpid(), s.StartTime+1); alive {
		t.Error("a process with another start time is alive")
	}
	c := exec.Command("/bin/true")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	s, err = ReadStat(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, alive := Running(c.Process.Pid, s.StartTime); alive {
		t.Error("a reaped process is alive")
	}
	if _, err := ReadStat(c.Process.Pid); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("ReadStat of a reaped process = %v, want ESRCH", err)
	}
}
