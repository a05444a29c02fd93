// Package mountinfo reads the table of mounts, /proc/PID/mountinfo of proc(5), for who looks for mount points, their types and
// sources. What a single mount says of itself (statx(2), statmount(2)) is not its subject.
package mountinfo

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Mount is one line of the table.
type Mount struct {
	ID      int
	Parent  int    // the ID of the mount that it is on
	Device  string // of the file system, MAJOR:MINOR
	Root    string // of the mount within its file system
	Point   string // where it is mounted, as the reading process sees it
	Options string // of the mount, separated by commas
	Peers   string // propagation: "shared:1 master:2", empty for a private mount
	FSType  string
	Source  string
	Super   string // options of the file system, separated by commas
}

// Self returns the mounts of this process's mount namespace, in the order in which the kernel lists them: parents first.
func Self() ([]Mount, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mount table: %w", err)
	}
	return Parse(string(data)), nil
}

// Of returns the mounts of process pid as it sees them. Every line must be of the table's form.
func Of(pid int) ([]Mount, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read mount table: %w", err)
	}
	mounts := Parse(string(data))
	if len(mounts) != strings.Count(string(data), "\n") {
		return nil, fmt.Errorf("read mount table of process %d: a line has another form", pid)
	}
	return mounts, nil
}

// Parse reads a table. Lines that are not of its form are left out.
func Parse(table string) []Mount {
	var mounts []Mount
	for line := range strings.Lines(table) {
		left, right, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		f, g := strings.Split(left, " "), strings.SplitN(right, " ", 3)
		if !ok || len(f) < 6 || len(g) < 3 {
			continue
		}
		id, err1 := strconv.Atoi(f[0])
		parent, err2 := strconv.Atoi(f[1])
		if err1 != nil || err2 != nil {
			continue
		}
		mounts = append(mounts, Mount{ID: id, Parent: parent, Device: f[2], Root: unescape(f[3]), Point: unescape(f[4]), Options: f[5],
			Peers: strings.Join(f[6:], " "), FSType: unescape(g[0]), Source: unescape(g[1]), Super: g[2]})
	}
	return mounts
}

// unescape undoes the octal escapes of spaces, tabs, newlines and backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(c byte) bool { return c >= '0' && c <= '7' }
