package vm

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// bootMarker is what a machine's first program writes to the console. One that starts from a disk does not.
const bootMarker = "tare-vm-booted"

// bootLimit is how long a machine may take to come there: some seconds, more on a busy host. QEMU 7.2 hangs now and then before the
// kernel's first message, with its processors busy, and comes through at the next try.
const (
	bootLimit = 3 * time.Minute
	bootTries = 3
)

// errHung is a machine that did not come to its first program.
var errHung = errors.New("the machine did not boot in " + bootLimit.String())

// boot runs QEMU to its end, again if the machine hangs before its first program. It returns what QEMU itself said.
func (m *Machine) boot(ctx context.Context, dir, qemu string, args []string) (said []byte, err error) {
	for range bootTries {
		limit := time.After(bootLimit)
		if m.Disk != "" {
			limit = nil
		}
		if said, err = runBooted(ctx, filepath.Join(dir, "console"), exec.Command(qemu, args...), limit); err != errHung {
			break
		}
	}
	return said, err
}

// runBooted runs QEMU to its end, unless the marker is not on the console when limit comes.
func runBooted(ctx context.Context, console string, cmd *exec.Cmd, limit <-chan time.Time) ([]byte, error) {
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case err := <-ended:
			return said.Bytes(), err
		case <-ctx.Done():
			cmd.Process.Kill()
			return said.Bytes(), <-ended
		case <-limit:
			if text, _ := os.ReadFile(console); bytes.Contains(text, []byte(bootMarker)) {
				continue // limit comes once
			}
			cmd.Process.Kill()
			<-ended
			return said.Bytes(), errHung
		}
	}
}
