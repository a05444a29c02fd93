package launch

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCopyOpened: owner and mode of a copy are those of what was opened, whatever the name led to before.
func TestCopyOpened(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	if err := os.WriteFile(from+"/file", []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(from+"/dir", 0o700); err != nil {
		t.Fatal(err)
	}
	var dirs [2]int
	for i, path := range []string{from, to} {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		dirs[i] = fd
	}
	for _, c := range []struct {
		name string
		copy func(from, to int, name string, st *unix.Stat_t) error
		mode uint32
	}{{"file", copyFile, unix.S_IFREG | 0o600}, {"dir", copyDir, unix.S_IFDIR | 0o700}} {
		st := unix.Stat_t{Mode: c.mode | 0o777, Uid: 77, Gid: 77} // of what was exchanged for it
		if err := c.copy(dirs[0], dirs[1], c.name, &st); err != nil {
			t.Fatal(err)
		}
		if uint32(st.Mode) != c.mode || int(st.Uid) != os.Getuid() {
			t.Errorf("%s has mode %o and owner %d, want %o and %d", c.name, st.Mode, st.Uid, c.mode, os.Getuid())
		}
	}
}

// TestDeadSender: a child whose listener nothing will send is an error.
func TestDeadSender(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	sender := os.NewFile(uintptr(fd), "pidfd")
	defer sender.Close()
	if ended(sender) {
		t.Error("a process that runs has ended")
	}
	cmd.Process.Kill()
	cmd.Wait()
	c := &Child{sync: pair[0], sender: sender, PIDFD: sender}
	if err := c.lookAt(); err != errSender {
		t.Errorf("lookAt = %v", err)
	}
}
