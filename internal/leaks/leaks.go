// Package leaks lists what operations on containers can leave on a host, one line for each thing, so that two lists can be
// compared: tests compare before and after, the command "tare-runtime leaks" looks for what has no container any more.
package leaks

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// List is what is there, a line for each thing.
type List []string

// Diff tells what is more (+) and what is less (-) in after, one a line in sorted order.
func (l List) Diff(after List) string {
	count := map[string]int{}
	for _, line := range after {
		count[line]++
	}
	for _, line := range l {
		count[line]--
	}
	var out []string
	for line, n := range count {
		if n != 0 {
			out = append(out, fmt.Sprintf("%+d %s\n", n, line))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "")
}

// Own lists what belongs to this process: the mounts of its namespace, its descriptors, threads that are in other namespaces, its
// descendants with their namespaces and mounts.
func Own() (List, error) {
	var l List
	for _, part := range []func() (List, error){func() (List, error) { return Mounts("self") }, Descriptors, Threads, Descendants} {
		lines, err := part()
		if err != nil {
			return nil, err
		}
		l = append(l, lines...)
	}
	return l, nil
}

// Mounts is the mount table that a process sees; pid may be "self".
func Mounts(pid string) (List, error) {
	data, err := os.ReadFile("/proc/" + pid + "/mountinfo")
	if err != nil {
		return nil, err
	}
	var l List
	for line := range strings.Lines(string(data)) {
		l = append(l, "mount "+strings.TrimSpace(line))
	}
	return l, nil
}

// MountPoints are the mount points that this process sees.
func MountPoints() ([]string, error) {
	table, err := Mounts("self")
	var points []string
	for _, line := range table {
		if f := strings.Fields(line); len(f) > 5 {
			points = append(points, strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(f[5]))
		}
	}
	return points, err
}

// Cgroups are the directories of all hierarchies for whose path below the mount point match is true.
func Cgroups(match func(path string) bool) (List, error) {
	table, err := Mounts("self")
	if err != nil {
		return nil, err
	}
	var l List
	seen := map[string]bool{}
	for _, line := range table {
		before, after, _ := strings.Cut(line, " - ")
		point := strings.Fields(before)[5]
		if !strings.HasPrefix(after, "cgroup") || seen[point] {
			continue
		}
		seen[point] = true
		filepath.WalkDir(point, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && match(strings.TrimPrefix(path, point)) {
				l = append(l, "cgroup "+path)
			}
			return nil // others remove theirs meanwhile
		})
	}
	return l, nil
}

// Descriptors are this process's, by what they lead to; sockets and pipes have numbers, of which the kind is enough.
func Descriptors() (List, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	var l List
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil {
			continue // the one of the directory
		}
		if kind, _, ok := strings.Cut(target, ":["); ok {
			target = kind
		}
		if strings.HasPrefix(target, "/proc/") && strings.HasSuffix(target, "/fd") {
			continue
		}
		l = append(l, "descriptor "+target)
	}
	return l, nil
}

// Threads tells of threads of this process that are in other namespaces than its first, or whose children will be.
func Threads() (List, error) {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil, err
	}
	var l List
	for _, task := range tasks {
		for _, kind := range []string{"cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time_for_children", "user", "uts"} {
			has, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/" + kind)
			own, e := os.Readlink("/proc/self/ns/" + strings.TrimSuffix(kind, "_for_children"))
			if err == nil && e == nil && strings.TrimPrefix(has, kind) != strings.TrimPrefix(own, kind) {
				l = append(l, fmt.Sprintf("thread in namespace %s, process in %s", has, own))
			}
		}
	}
	return l, nil
}

// Descendants are this process's descendants, with the namespaces they are in and, when they have their own, their mounts.
func Descendants() (List, error) {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil, err
	}
	var l List
	for _, pid := range descendants(strconv.Itoa(os.Getpid())) {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			continue // it has ended meanwhile
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		comm, _ := os.ReadFile("/proc/" + pid + "/comm")
		l = append(l, "process "+pid+" "+strings.TrimSpace(string(comm))+" "+strings.Map(asleep, rest[:1]))
		ns, _ := os.ReadDir("/proc/" + pid + "/ns")
		for _, n := range ns {
			if target, err := os.Readlink("/proc/" + pid + "/ns/" + n.Name()); err == nil {
				l = append(l, "process "+pid+" in "+target)
			}
		}
		if mnt, err := os.Readlink("/proc/" + pid + "/ns/mnt"); err == nil && mnt != own {
			table, _ := Mounts(pid)
			for _, line := range table {
				l = append(l, "process "+pid+" "+line)
			}
		}
	}
	return l, nil
}

// asleep makes one of the states that a waiting process changes between.
func asleep(state rune) rune {
	if state == 'R' || state == 'D' {
		return 'S'
	}
	return state
}

// HasDescendants tells whether this process has children.
func HasDescendants() bool { return len(descendants(strconv.Itoa(os.Getpid()))) > 0 }

func descendants(pid string) (list []string) {
	tasks, _ := filepath.Glob("/proc/" + pid + "/task/*/children")
	for _, task := range tasks {
		data, _ := os.ReadFile(task)
		for _, child := range strings.Fields(string(data)) {
			list = append(append(list, child), descendants(child)...)
		}
	}
	return list
}

// Files are the paths below dir, which may not exist, with their type and mode, and for files the size and the time of the content.
func Files(dir string) (List, error) {
	var l List
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		line := fmt.Sprintf("file %s %v", path, st.Mode())
		if st.Mode().IsRegular() {
			line += fmt.Sprintf(" %d bytes of %v", st.Size(), st.ModTime().UnixNano())
		}
		l = append(l, line)
		return nil
	})
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return l, err
}
