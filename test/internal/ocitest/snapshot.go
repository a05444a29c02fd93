package ocitest

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Snapshot is what a runtime can leave behind on the machine: mounts, the suite's cgroups, network devices, processes and
// files in the places where runtimes keep state. Open descriptors need no entry, they die with the runtime's processes.
type Snapshot map[string]bool

// TakeSnapshot looks at the world of the suite.
func TakeSnapshot() Snapshot {
	s := Snapshot{}
	data, _ := os.ReadFile("/proc/self/mountinfo")
	for _, l := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		s["mount "+l] = true
	}
	for _, d := range cgroupDirs(filepath.Base(workDir)) {
		if peer != "crun" || !strings.Contains(d, "/unified/") { // plain directories there; see hideUnified
			s["cgroup "+d] = true
		}
	}
	links, _ := net.Interfaces()
	for _, l := range links {
		s["network device "+l.Name] = true
	}
	for pid, what := range processes() {
		s[fmt.Sprintf("process %d %s", pid, what)] = true
	}
	for _, dir := range []string{"/run", "/dev", "/dev/shm", "/dev/mqueue"} {
		for _, e := range list(dir) {
			s["file "+dir+"/"+e] = true
		}
	}
	return s
}

// Diff tells what differs in after, one a line; empty: nothing.
func (s Snapshot) Diff(after Snapshot) string {
	var out []string
	for k := range after {
		if !s[k] {
			out = append(out, "  new: "+k)
		}
	}
	for k := range s {
		if !after[k] {
			out = append(out, "  gone: "+k)
		}
	}
	sort.Strings(out)
	return strings.Join(out, "\n")
}

func list(dir string) []string {
	es, _ := os.ReadDir(dir)
	var names []string
	for _, e := range es {
		names = append(names, e.Name())
	}
	return names
}

// cgroupDirs returns the cgroup directories, children first, below any that has mark in its name.
func cgroupDirs(mark string) []string {
	var out []string
	filepath.WalkDir("/sys/fs/cgroup", func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(p, mark) {
			out = append(out, p)
		}
		return nil
	})
	sort.Sort(sort.Reverse(sort.StringSlice(out)))
	return out
}

// processes returns the processes of the suite's pid namespace but the suite itself: pid and command.
func processes() map[int]string {
	m := map[int]string{}
	for _, e := range list("/proc") {
		pid, err := strconv.Atoi(e)
		if err != nil || pid == os.Getpid() {
			continue
		}
		cmd, err := os.ReadFile("/proc/" + e + "/cmdline")
		if err != nil {
			continue
		}
		m[pid] = strings.ReplaceAll(strings.TrimSuffix(string(cmd), "\x00"), "\x00", " ")
	}
	return m
}

// reap waits for dead children that were re-parented to the suite, and gives dying ones a moment.
func reap() {
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		reapOnce()
		if len(processes()) == 0 {
			return
		}
	}
}

func reapOnce() {
	for {
		if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
			return
		}
	}
}

func stateFiles(root string) []string {
	var out []string
	for _, n := range list(root) {
		out = append(out, filepath.Join(root, n))
	}
	return out
}

// detachBelow takes away mounts that a failed case left below dir, so that removing dir cannot reach what is mounted there.
func detachBelow(dir string) {
	data, _ := os.ReadFile("/proc/self/mountinfo")
	lines := strings.Split(string(data), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		f := strings.Fields(lines[i])
		if len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			unix.Unmount(f[4], unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
	}
}
