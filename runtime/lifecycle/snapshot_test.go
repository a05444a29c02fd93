package lifecycle

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// snapshot is what an operation could leave behind, one sorted line for each thing.
type snapshot []string

// snapshot looks at mounts, cgroups, namespaces, descriptors, threads, processes, and files of the bundle and the state.
func (b *faultBundle) snapshot() snapshot {
	b.t.Helper()
	var s snapshot
	s = append(s, prefix("mount ", mounts(b.t, "self"))...)
	s = append(s, cgroups(b.t, b.create.ID)...)
	s = append(s, descriptors(b.t)...)
	s = append(s, threads(b.t)...)
	s = append(s, b.processes()...)
	s = append(s, b.deviceState()...)
	s = append(s, b.classes()...)
	s = append(s, files(b.t, b.dir)...)
	slices.Sort(s)
	return s
}

// awaitSame gives what ends by itself, a process that was killed or a copying goroutine, a second to do so.
func (b *faultBundle) awaitSame(before snapshot) (diff string) {
	b.t.Helper()
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		if diff = before.diff(b.snapshot()); diff == "" || time.Since(begin) > time.Second {
			return diff
		}
	}
}

// diff lists what is more (+) and what is less (-) than before.
func (s snapshot) diff(after snapshot) string {
	count := map[string]int{}
	for _, line := range after {
		count[line]++
	}
	for _, line := range s {
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

func prefix(with string, lines []string) []string {
	out := make([]string, len(lines))
	for i, line := range lines {
		out[i] = with + line
	}
	return out
}

// mounts is the mount table that a process sees.
func mounts(t *testing.T, pid string) []string {
	t.Helper()
	data, err := os.ReadFile("/proc/" + pid + "/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}

// cgroups are the directories of all hierarchies with mark in their path; others belong to those who work beside us.
func cgroups(t *testing.T, mark string) (list []string) {
	t.Helper()
	seen := map[string]bool{}
	for _, line := range mounts(t, "self") {
		before, after, _ := strings.Cut(line, " - ")
		point := strings.Fields(before)[4]
		if !strings.HasPrefix(after, "cgroup") || seen[point] {
			continue
		}
		seen[point] = true
		filepath.WalkDir(point, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && strings.Contains(path, mark) {
				list = append(list, "cgroup "+path)
			}
			return nil // others remove theirs while we look
		})
	}
	return list
}

// descriptors are this process's, by what they lead to; sockets and pipes have numbers, of which the kind is enough.
func descriptors(t *testing.T) (list []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
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
		list = append(list, "descriptor "+target)
	}
	return list
}

// threads tells of threads of this process that are in other namespaces than its first, or whose children will be.
func threads(t *testing.T) (list []string) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	kinds := []string{"cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time_for_children", "user", "uts"}
	for _, task := range tasks {
		for _, kind := range kinds {
			has, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/" + kind)
			own, e := os.Readlink("/proc/self/ns/" + strings.TrimSuffix(kind, "_for_children"))
			if err == nil && e == nil && strings.TrimPrefix(has, kind) != strings.TrimPrefix(own, kind) {
				list = append(list, fmt.Sprintf("thread in namespace %s, process in %s", has, own))
			}
		}
	}
	return list
}

// processes are this process's descendants, with the namespaces they are in and, when they have their own, their mounts.
func (b *faultBundle) processes() (list []string) {
	b.t.Helper()
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		b.t.Fatal(err)
	}
	for _, pid := range descendants(strconv.Itoa(os.Getpid())) {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		comm, _ := os.ReadFile("/proc/" + pid + "/comm")
		list = append(list, "process "+pid+" "+strings.TrimSpace(string(comm))+" "+strings.Map(asleep, rest[:1]))
		ns, _ := os.ReadDir("/proc/" + pid + "/ns")
		for _, n := range ns {
			if target, err := os.Readlink("/proc/" + pid + "/ns/" + n.Name()); err == nil {
				list = append(list, "process "+pid+" in "+target)
			}
		}
		if mnt, err := os.Readlink("/proc/" + pid + "/ns/mnt"); err == nil && mnt != own {
			list = append(list, prefix("process "+pid+" mount ", mounts(b.t, pid))...)
		}
	}
	return list
}

// asleep makes one of the states that a waiting process changes between.
func asleep(state rune) rune {
	if state == 'R' || state == 'D' {
		return 'S'
	}
	return state
}

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

// files are the paths below dir with their type, owner, size and content's time.
func files(t *testing.T, dir string) (list []string) {
	t.Helper()
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
		list = append(list, line)
		return nil
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return list
}

// consoleSocket takes terminals and closes them when the sender is done.
type consoleSocket struct{ path string }

func listenConsole(t *testing.T, path string) *consoleSocket {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			c.Read(make([]byte, 4096)) // without room for it the descriptor is closed
			c.Close()
		}
	}()
	return &consoleSocket{path}
}
