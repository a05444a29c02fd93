// Package procfstest makes processes for tests of what reads /proc.
package procfstest

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// Forked returns the number of a process that was cloned and has not executed a program since, as a container's first
// process is until start. It lives until it is killed, or the test ends.
func Forked(t testing.TB) int {
	t.Helper()
	hold, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("sh", "-c", "(read line) <&3 & echo $!; wait")
	c.ExtraFiles = []*os.File{hold}
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	hold.Close()
	pid := 0
	if _, err := fmt.Fscan(out, &pid); err != nil || pid <= 1 {
		t.Fatalf("number of the forked process: %d, %v", pid, err)
	}
	ended := make(chan struct{})
	go func() { c.Wait(); close(ended) }()
	t.Cleanup(func() { end.Close(); <-ended })
	return pid
}
