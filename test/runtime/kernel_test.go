package runtime

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

// newCalls are the system calls of Linux 5.1 to 5.14 that tare-runtime makes, and statx, which old filters refuse.
var newCalls = map[string]int{
	"open_tree": unix.SYS_OPEN_TREE, "move_mount": unix.SYS_MOVE_MOUNT, "fsopen": unix.SYS_FSOPEN, "fsconfig": unix.SYS_FSCONFIG,
	"fsmount": unix.SYS_FSMOUNT, "fspick": unix.SYS_FSPICK, "pidfd_send_signal": unix.SYS_PIDFD_SEND_SIGNAL,
	"pidfd_open": unix.SYS_PIDFD_OPEN, "clone3": unix.SYS_CLONE3, "openat2": unix.SYS_OPENAT2, "faccessat2": unix.SYS_FACCESSAT2,
	"close_range": unix.SYS_CLOSE_RANGE, "mount_setattr": unix.SYS_MOUNT_SETATTR, "statx": unix.SYS_STATX,
}

// showProtections prints what a process sees of its confinement. It is the same wherever the container runs.
const showProtections = `ls /proc/self/fd; for f in keys timer_list kcore sched_debug acpi scsi; do echo $f $(cat /proc/$f 2>&1 | wc -c); done
(echo 1 >/proc/sys/kernel/domainname) 2>&1; (echo 1 >/proc/sysrq-trigger) 2>&1; (touch /sys/fs/cgroup/x) 2>&1
cut -d' ' -f5,6 /proc/self/mountinfo; grep -E '^(Cap|NoNewPrivs|Uid|Gid|Groups)' /proc/self/status; ls -l /dev | sed 's/root.*root/x/'`

// TestOldKernel: on a kernel that lacks a system call, which a filter of the caller imitates, a command does what it
// does elsewhere, or fails with a sentence that names the call and the version. It never hangs, and no container is
// confined less.
func TestOldKernel(t *testing.T) {
	if !ocitest.Tare() {
		t.Skip("the sentence is tare-runtime's own")
	}
	userns := []string{`linux.namespaces+=[{"type":"user"}]`, `linux.uidMappings=[{"containerID":0,"hostID":100000,"size":1000}]`,
		`linux.gidMappings=[{"containerID":0,"hostID":100000,"size":1000}]`, `mounts+=[{"destination":"/tmp","type":"tmpfs","options":["ro"]}]`}
	for name, number := range newCalls {
		row(t, "G4 without "+name, func(h *H) {
			k := oldKernel{h, name, []string{ocitest.WorkDir() + "/probe", "without", strconv.Itoa(number)}}
			for _, edits := range [][]string{nil, userns, {`mounts+=[{"destination":"/dev/shm","type":"tmpfs","options":["remount","ro"]}]`}} {
				b := h.Bundle().Sh(showProtections).Edit(edits...)
				want := h.Run(b)
				if want.Code != 0 {
					h.Fatalf("run: status %d, %s", want.Code, want.Stderr)
				}
				b.ID = h.NewID()
				k.same(want, "run", "-b", b.Dir, b.ID)
			}
			b := h.Bundle().Args("sleep", "1000")
			h.Write(b)
			if k.same(Result{}, "create", "-b", b.Dir, b.ID) {
				h.MustRT("delete", "-f", b.ID)
			}
			h.MustRT("create", "-b", b.Dir, b.ID)
			k.same(Result{}, "start", b.ID)
			k.same(h.RT("exec", b.ID, "sh", "-c", showProtections), "exec", b.ID, "sh", "-c", showProtections)
			k.same(h.RT("exec", b.ID, "/nope"), "exec", b.ID, "/nope")
			k.same(h.RT("state", b.ID), "state", b.ID)
			k.same(Result{}, "pause", b.ID)
			k.same(Result{}, "resume", b.ID)
			if k.same(Result{}, "kill", b.ID, "KILL") {
				h.AwaitStatus(b.ID, "stopped")
			}
			k.same(Result{}, "delete", "-f", b.ID)
		})
	}
}

// oldKernel is a kernel that lacks a call.
type oldKernel struct {
	h    *H
	call string
	wrap []string
}

// same runs a command there and reports whether it did what it does elsewhere. An error must name the call and the
// version.
func (k oldKernel) same(want Result, args ...string) bool {
	secret, err := os.Open("/etc/passwd") // a descriptor of the caller that no container may have
	if err != nil {
		k.h.Fatalf("%v", err)
	}
	defer secret.Close()
	r := k.h.Do(Cmd{Args: args, Wrap: k.wrap, Files: []*os.File{secret}, Timeout: 10 * time.Second})
	if r.Code == want.Code && r.Stdout == want.Stdout && (r.Code == 0 || cause(r) == cause(want)) {
		return true
	}
	if r.Code == 0 || r.Stdout != "" || !strings.Contains(r.Stderr, "missing system calls: "+k.call+"; tare needs Linux 5.14") {
		k.h.Errorf("%s: status %d, %q, %q; elsewhere status %d, %q", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr, want.Code, want.Stdout)
	}
	return false
}

// cause is an error without the time of its line.
func cause(r Result) string {
	_, text, _ := strings.Cut(r.Stderr, " level=")
	return text
}
