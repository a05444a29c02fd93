package escape

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sizeUnread is SYSLOG_ACTION_SIZE_UNREAD of syslog(2): how many bytes /proc/kmsg still has.
const sizeUnread = 9

// TestKernelLog has an image whose /etc/passwd is the kernel's log, which can be read once (issue 7 F8).
func TestKernelLog(t *testing.T) {
	unread := func(h *H) int {
		n, err := unix.Klogctl(sizeUnread, nil)
		if err != nil {
			h.T.Skipf("the kernel's log cannot be looked at: %v", err)
		}
		return n
	}
	row(t, "issue7 F8 the kernel's log is not read as a list of users", func(h *H) {
		if err := os.WriteFile("/dev/kmsg", []byte("tare: a message for a test\n"), 0); err != nil {
			h.T.Skipf("the kernel's log takes no message: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
		before := unread(h)
		if before == 0 {
			h.T.Skip("another process reads the kernel's log")
		}
		b := h.Bundle().Args("sleep", "60").Edit(`process.env=["PATH=/bin"]`)
		if err := os.MkdirAll(b.Rootfs+"/etc", 0o755); err != nil {
			h.Fatalf("%v", err)
		}
		os.Remove(b.Rootfs + "/etc/passwd")
		if err := os.Symlink("/proc/kmsg", b.Rootfs+"/etc/passwd"); err != nil {
			h.Fatalf("%v", err)
		}
		h.Up(b)
		h.Want(h.RT("exec", b.ID, "sh", "-c", "echo $HOME"), "/", 0)
		if after := unread(h); after < before {
			h.Errorf("of %d unread bytes of the kernel's log %d are left", before, after)
		}
	})
}
