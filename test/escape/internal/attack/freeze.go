package attack

import (
	"os"
	"os/exec"
	"time"
)

// freezers is how many processes freeze another one.
const freezers = 3

// freeze makes a cgroup below dir, of the freezer's hierarchy where there are several, which other processes freeze all
// the time, and moves this process into it.
func freeze(dir string) error {
	if _, err := os.Stat(dir + "/freezer"); err == nil {
		dir += "/freezer"
	}
	dir += "/cold"
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	file, word := dir+"/freezer.state", "FROZEN"
	if _, err := os.Stat(file); err != nil {
		file, word = dir+"/cgroup.freeze", "1"
	}
	for range freezers {
		c := exec.Command("/proc/self/exe", "freeze-child", file, word)
		c.Args[0], c.Stdout = Name, os.Stdout
		if err := c.Start(); err != nil {
			return err
		}
	}
	if err := os.WriteFile(dir+"/cgroup.procs", []byte("0"), 0); err != nil {
		return err
	}
	for {
		time.Sleep(time.Hour)
	}
}

// freezeAgain writes word to file for ever.
func freezeAgain(file, word string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	for {
		if _, err := f.WriteString(word); err != nil {
			return err
		}
	}
}
