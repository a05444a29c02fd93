// Package attack is what hostile containers of the escape suite run, and what the suite's hooks run on the host. The suite's test
// binary is the program, under the name attack, so that nothing else has to be built or copied into a root file system.
package attack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Name is the base name of argument 0 under which the test binary runs Main.
const Name = "attack"

// Main runs one command and returns the exit status:
//
//	attack mountinfo FILE          a hook: the container's state is on standard input, its mount table goes to FILE
//	attack watch CAPS COMM         report what new processes of the pid namespace have or show until they are named COMM; never ends
//	attack newproc DIR             mount a new procfs on DIR in new user, pid and mount namespaces
//	attack socket32 FAMILY         socket(2) by the 32-bit entry, directly and by socketcall(2)
//	attack open MODE PATH          open a path: MODE is r or w
//	attack capabilities            the sets of this process
//	attack stop COMM               stop new processes of the pid namespace until they are named COMM; never ends
//	attack orders FROM TO          ask the runtime, over sockets of new processes, to copy a directory; never ends
//	attack hold                    keep the sockets of new processes; never ends
//	attack deep DIR                hide this process and a frozen one in cgroups below DIR that no path reaches
//	attack freeze DIR              have processes freeze this one in a cgroup below DIR again and again; never ends
func Main(args []string) int {
	if len(args) == 0 {
		return 2
	}
	var err error
	switch cmd, args := args[0], args[1:]; {
	case cmd == "mountinfo" && len(args) == 1:
		err = copyMountinfo(args[0])
	case cmd == "watch" && len(args) == 2:
		err = watch(args[0], args[1])
	case cmd == "newproc" && len(args) == 1:
		err = newProc(args[0])
	case cmd == "newproc-child" && len(args) == 1:
		err = unix.Mount("proc", args[0], "proc", 0, "")
	case cmd == "socket32" && len(args) == 1:
		err = socket32(args[0])
	case cmd == "open" && len(args) == 2:
		err = open(args[0], args[1])
	case cmd == "stop" && len(args) == 1:
		err = stop(args[0])
	case cmd == "orders" && len(args) == 2:
		err = orders(args[0], args[1])
	case cmd == "hold" && len(args) == 0:
		err = hold()
	case cmd == "deep" && len(args) == 1:
		err = deep(args[0])
	case cmd == "freeze" && len(args) == 1:
		err = freeze(args[0])
	case cmd == "freeze-child" && len(args) == 2:
		err = freezeAgain(args[0], args[1])
	case cmd == "capabilities":
		err = capabilities()
	default:
		return 2
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// copyMountinfo writes the mount table of the container's first process. In a createRuntime hook that process has made the
// container's mounts and still sees the host's: a mount that landed outside of the root file system is found.
func copyMountinfo(file string) error {
	var state struct {
		Pid int `json:"pid"`
	}
	if err := json.NewDecoder(os.Stdin).Decode(&state); err != nil {
		return err
	}
	data, err := os.ReadFile("/proc/" + strconv.Itoa(state.Pid) + "/mountinfo")
	if err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}

// newProc does what any user may do: a user namespace gives the rights to mount a procfs of a new pid namespace, unless every
// procfs that can be seen is partly covered.
func newProc(dir string) error {
	id := os.Getuid()
	gid := os.Getgid()
	c := exec.Command("/proc/self/exe", "newproc-child", dir)
	c.Args[0] = Name
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}},
	}
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		fmt.Println("mounted")
		return nil
	case errors.As(err, &exit):
		return fmt.Errorf("mount: %s", strings.TrimSpace(string(out)))
	}
	return fmt.Errorf("namespaces: %w", err)
}

func open(mode, path string) error {
	flags := os.O_RDONLY
	if mode == "w" {
		flags = os.O_WRONLY
	}
	f, err := os.OpenFile(path, flags|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	fmt.Println("opened")
	return nil
}

func capabilities() error {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "Cap") {
			fmt.Print(strings.ReplaceAll(line, ":\t", "="))
		}
	}
	return nil
}
