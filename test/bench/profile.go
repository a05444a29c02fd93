package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// profileRuns is how many runs the profile takes its medians from.
const profileRuns = 20

// The lines of strace -f -ttt -T: "PID TIME call(args) = result <SECONDS>", or in two halves when another process came between.
var (
	traceLine = regexp.MustCompile(`^(\d+) +[\d.]+ (?:<\.\.\. )?(\w+)(.*?)(?:<([\d.]+)>)?$`)
	cloneLine = regexp.MustCompile(`clone3? ?.*=> .*= (\d+) <|clone3?\(.*\) = (\d+) <|clone3? resumed.*= (\d+) <`)
)

// waits are calls whose time is that of others.
var waits = []string{"futex", "nanosleep", "wait4", "waitid", "recvmsg", "epoll_pwait", "ppoll", "pause"}

// call is a system call of the runtime (parent) or of the process that becomes the container's (child).
type call struct{ role, name string }

// cost is how often a call was made in one run and how long it took in all.
type cost struct {
	count int
	time  time.Duration
}

// profile writes which system calls tare-runtime's run makes and what they take, medians of several runs under strace. What strace
// itself adds to each is about the time of the cheapest, which is subtracted.
func (w *world) profile(ctx context.Context, path string) error {
	strace, err := exec.LookPath("strace")
	if err != nil {
		return err
	}
	p := w.runtimes[0]
	seen := map[call][]cost{}
	var cheapest []time.Duration
	for i := range profileRuns {
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		file := filepath.Join(w.dir, fmt.Sprintf("trace%d", i))
		argv := append([]string{strace, "-f", "-ttt", "-T", "-s0", "-o", file}, p.args("run", "--bundle", w.bundle("default"), w.id())...)
		if _, err := w.spawn(argv...); err != nil {
			return err
		}
		costs, least, err := readTrace(file)
		if err != nil {
			return err
		}
		for c, v := range costs {
			seen[c] = append(seen[c], v)
		}
		cheapest = append(cheapest, least)
	}
	slices.Sort(cheapest)
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(writeProfile(out, seen, quantile(cheapest, 0.5)), out.Close())
}

// readTrace sums the calls of one trace and returns the median time of getpid and its like.
func readTrace(path string) (map[call]cost, time.Duration, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, 0, err
	}
	lines := strings.Split(string(data), "\n")
	child := childOf(lines)
	costs := map[call]cost{}
	var trivial []time.Duration
	for _, line := range lines {
		m := traceLine.FindStringSubmatch(line)
		if m == nil || m[4] == "" {
			continue // the first half of a call, or not a call
		}
		seconds, err := strconv.ParseFloat(m[4], 64)
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %q: %w", path, line, err)
		}
		role := "parent"
		if m[1] == child {
			role = "child"
		}
		took := time.Duration(seconds * float64(time.Second))
		key := call{role, m[2]}
		v := costs[key]
		costs[key] = cost{v.count + 1, v.time + took}
		if slices.Contains([]string{"getpid", "gettid", "geteuid", "umask", "fchdir"}, m[2]) {
			trivial = append(trivial, took)
		}
	}
	if len(trivial) == 0 {
		return nil, 0, fmt.Errorf("%s: no system calls in the trace", path)
	}
	slices.Sort(trivial)
	return costs, quantile(trivial, 0.5), nil
}

// childOf returns the number of the last process, not thread, that was made.
func childOf(lines []string) (pid string) {
	for _, line := range lines {
		if strings.Contains(line, "CLONE_THREAD") || strings.Contains(line, "tls=") {
			continue
		}
		if m := cloneLine.FindStringSubmatch(line); m != nil {
			pid = m[1] + m[2] + m[3]
		}
	}
	return pid
}

// writeProfile writes the calls by their cost; those that wait at the end.
func writeProfile(out io.Writer, seen map[call][]cost, each time.Duration) error {
	type row struct {
		call
		count int
		time  time.Duration
	}
	var rows []row
	for c, costs := range seen {
		var times []time.Duration
		var counts []int
		for _, v := range costs {
			times = append(times, max(0, v.time-time.Duration(v.count)*each))
			counts = append(counts, v.count)
		}
		slices.Sort(times)
		slices.Sort(counts)
		rows = append(rows, row{c, counts[len(counts)/2], quantile(times, 0.5)})
	}
	slices.SortFunc(rows, func(a, b row) int { return int(b.time - a.time) })
	var b strings.Builder
	fmt.Fprintf(&b, "System calls of one `tare-runtime run` (default configuration), medians of %d runs under strace, load %.2f.\n"+
		"Microseconds in all, less %d per call for strace. Waiting calls depend on others.\n\n", profileRuns, readLoad(), each.Microseconds())
	for _, waiting := range []bool{false, true} {
		for _, r := range rows {
			if slices.Contains(waits, r.name) == waiting {
				fmt.Fprintf(&b, "%-7s %8d µs %5d × %s\n", r.role, r.time.Microseconds(), r.count, r.name)
			}
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}
