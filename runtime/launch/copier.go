package launch

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/runtime/plan"
)

// What a directory below a tmpfs holds is copied by a process of its own, this program with the arguments CopyUpArg,
// FROM and TO, which are numbers of descriptors. It has the runtime's rights, to keep owners, and is in the container's
// cgroup, whose limits of memory count for what it writes; in the container's pid namespace it is not.

// CopyUpArg is the first argument of the program that copies.
const CopyUpArg = "copy-up"

// CopyUp is the program that copies, with the arguments after the first one. It returns the exit status.
func CopyUp(args []string) int {
	if len(args) != 2 {
		return 2
	}
	from, err1 := strconv.Atoi(args[0])
	to, err2 := strconv.Atoi(args[1])
	if err1 != nil || err2 != nil {
		return 2
	}
	if err := copyTree(from, to); err != nil {
		text := err.Error()
		if len(text) > copierText { // the path is the image's; a pipe that nothing reads yet would hold less
			text = "…" + text[len(text)-copierText:]
		}
		fmt.Fprint(os.Stderr, text)
		return 1
	}
	return 0
}

// copierText is how many bytes of an error the program that copies writes at most: its end, which has the cause.
const copierText = 1024

// serveCopy has a tmpfs filled once its descriptor and that of the directory below it have come.
func (c *Child) serveCopy(descriptor int) error {
	c.copyUp = append(c.copyUp, descriptor)
	if len(c.copyUp) < 2 {
		return nil
	}
	from, to := os.NewFile(uintptr(c.copyUp[0]), "from"), os.NewFile(uintptr(c.copyUp[1]), "to")
	c.copyUp = nil
	defer from.Close()
	defer to.Close()
	if err := c.runCopier(from, to); err != nil {
		return fmt.Errorf("copy up the directory below a tmpfs: %w", err)
	}
	return c.Go()
}

// runCopier runs the program that copies and waits for its end. It ends the copy when the container's process has
// ended: a delete waits for the create to end with that process.
func (c *Child) runCopier(from, to *os.File) error {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	said, out := os.NewFile(uintptr(pipe[0]), "pipe"), os.NewFile(uintptr(pipe[1]), "pipe")
	defer said.Close()
	defer out.Close()
	res := &Resources{Cgroups: c.res.Cgroups, CgroupDir: c.res.CgroupDir, Place: c.res.Place, Keep: []*os.File{from, to},
		Stdio: [3]*os.File{nil, out, out}}
	copier, err := Start(c.planCopier(res), res)
	out.Close()
	if err != nil {
		return err
	}
	defer copier.Close()
	if err = copier.Finish(); err == nil {
		err = copier.Await(0)
	}
	if err != nil {
		copier.Abort()
		return err
	}
	if c.endsBefore(said) {
		copier.Abort()
		return ErrGone
	}
	text := make([]byte, 4096)
	n, _ := said.Read(text)
	switch ws := copier.Wait(); {
	case ws.Signaled() && ws.Signal() == syscall.SIGKILL:
		return fmt.Errorf("it was killed (what it writes counts for the memory limit of the container)")
	case ws.Signaled():
		return fmt.Errorf("it was ended by signal %v", ws.Signal())
	case ws.ExitStatus() != 0:
		return fmt.Errorf("%s", strings.TrimSpace(string(text[:max(n, 0)])))
	}
	return nil
}

// endsBefore waits until the copier says something or ends, and tells whether the process that waits for the copy has
// ended before.
func (c *Child) endsBefore(said *os.File) bool {
	fds := []unix.PollFd{{Fd: int32(said.Fd()), Events: unix.POLLIN}, {Fd: int32(c.PIDFD.Fd()), Events: unix.POLLIN}}
	for {
		switch _, err := unix.Poll(fds, -1); {
		case err == unix.EINTR:
		case err != nil || fds[0].Revents != 0:
			return false
		case c.moreToReceive(): // an intermediate process has told of its child and ended; the child waits
			fds = fds[:1]
		default:
			return true
		}
	}
}

// moreToReceive tells whether a plan with an intermediate process has a record for this process. The one that waits for
// a copy sends nothing meanwhile.
func (c *Child) moreToReceive() bool {
	if len(c.plan.Outer) == 0 {
		return false
	}
	n, _, err := unix.Recvfrom(c.sync, make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err == nil && n > 0
}

// planCopier is the plan of the program that copies.
func (c *Child) planCopier(res *Resources) *plan.Plan {
	p := new(plan.Plan)
	if res.Place != nil {
		p.Child = append(p.Child, plan.Wait{For: "the process is in its cgroup"})
	}
	for _, op := range append(c.plan.Outer, c.plan.Child...) {
		// A Go program has more threads than some containers may have processes; on cgroup2 there is no choice.
		if join, ok := op.(plan.JoinCgroup); ok && join.Name != "pids" {
			p.Child = append(p.Child, join)
		}
	}
	args := []string{"tare-runtime", CopyUpArg, strconv.Itoa(int(res.Keep[0].Fd())), strconv.Itoa(int(res.Keep[1].Fd()))}
	// Few threads: they count for the container's pids.limit.
	env := []string{"GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=64MiB"}
	p.Child = append(p.Child, plan.CloseOnExec{First: 3}, plan.KeepOpen{Index: 0}, plan.KeepOpen{Index: 1}, plan.Wait{For: "the copy may begin"},
		plan.Exec{Path: "/proc/self/exe", Args: args, Env: env})
	return p
}
