//go:build amd64 || arm64

package killpoint

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestAt kills a shell at each of its calls, and the process that it starts.
func TestAt(t *testing.T) {
	for victim, min := range []int{Program: 5, Clone: 3} {
		dir := t.TempDir()
		for n := 1; ; n++ {
			c := exec.Command("sh", "-c", "(: > a; : > b; mkdir c); : > d")
			c.Dir = dir
			r, err := At(c, Victim(victim), n, 10*time.Second)
			if err != nil {
				t.Fatalf("victim %d, call %d: %v", victim, n, err)
			}
			if killed := r.Status.Signaled() && r.Status.Signal() == syscall.SIGKILL; killed != (r.Killed && Victim(victim) == Program) {
				t.Fatalf("victim %d: %+v", victim, r)
			}
			if !r.Killed {
				if n <= min || r.Calls != n-1 {
					t.Errorf("victim %d: only %d calls, %+v", victim, n-1, r)
				}
				break
			}
			_, errC := os.Stat(filepath.Join(dir, "c"))
			_, errD := os.Stat(filepath.Join(dir, "d"))
			if Victim(victim) == Clone && errD != nil { // the shell itself goes on
				t.Errorf("victim %d, %s: %v, %v", victim, r.Call, errC, errD)
			}
			os.RemoveAll(filepath.Join(dir, "c"))
			os.Remove(filepath.Join(dir, "d"))
		}
	}
}

func TestLimit(t *testing.T) {
	if r, err := At(exec.Command("sleep", "100"), Program, 0, 50*time.Millisecond); err == nil {
		t.Errorf("a program that hangs: %+v", r)
	}
}
