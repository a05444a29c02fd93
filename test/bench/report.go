package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The rows of the tables.
const (
	rowRun     = "`run`"
	rowSeccomp = "`run` with Docker's default seccomp profile"
	rowCreate  = "`create`"
	rowStart   = "`start`"
	rowDelete  = "`delete`"
	rowExec    = "`exec`"
	rowUser    = "`run` with a user namespace"
	rowLife    = "`create` + `start` + `delete`"
	rowEngine  = "engine"
	rowCrowd   = "`run` beside other containers"
	rowAlone   = "`run` before and after those"

	rowRootless = "`run` by a user who is not root"
)

// results are the figures of one benchmark.
type results struct {
	w                     *world
	samples               map[[2]string][]sample // by row and who
	memory                map[string][]int64     // by runtime, bytes
	size                  map[string]int64       // by runtime, bytes
	counts                *results               // nil: nothing was counted
	loadBefore, loadAfter float64
}

func newResults(w *world) *results {
	return &results{w: w, samples: map[[2]string][]sample{}, memory: map[string][]int64{}, size: map[string]int64{}}
}

func (r *results) add(row, who string, s sample) {
	r.samples[[2]string{row, who}] = append(r.samples[[2]string{row, who}], s)
}

// get returns the figures of a row and whether they were measured.
func (r *results) get(row, who string) (summary, bool) {
	s := r.samples[[2]string{row, who}]
	if len(s) == 0 {
		return summary{}, false
	}
	return summarize(s), true
}

// readSizes takes the sizes of the binaries; those of the distribution are stripped, ours is by `make build`.
func (r *results) readSizes(w *world) error {
	for _, p := range w.runtimes {
		fi, err := os.Stat(p.path)
		if err != nil {
			return err
		}
		r.size[p.name] = fi.Size()
	}
	return nil
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond)) }

// cell is a figure of the wide table: the median, and the tenth and ninetieth of a hundred behind it.
func (r *results) cell(row, who string) string {
	s, ok := r.get(row, who)
	if !ok {
		return "—"
	}
	return fmt.Sprintf("%s (%s … %s)", ms(s.median), ms(s.p10), ms(s.p90))
}

// ratio is the median over the rounds of one's time by the other's of the same round: what else the machine does then
// counts for both.
func (r *results) ratio(row, who, other string) (float64, bool) {
	a, b := r.samples[[2]string{row, who}], r.samples[[2]string{row, other}]
	if len(a) == 0 || len(a) != len(b) {
		return 0, false
	}
	ratios := make([]float64, len(a))
	for i := range a {
		ratios[i] = float64(a[i].wall) / float64(b[i].wall)
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/2], true
}

// growth is the median of a row by that of another one, both of the same program.
func (r *results) growth(row, other, who string) (float64, bool) {
	a, ok := r.get(row, who)
	b, ok2 := r.get(other, who)
	if !ok || !ok2 {
		return 0, false
	}
	return float64(a.median) / float64(b.median), true
}

// target is a figure that is to be reached.
type target struct {
	what  string
	limit float64
	unit  string
	got   float64
	ok    bool // it was measured
}

func (r *results) targets() []target {
	t := func(what string, limit float64, unit string) func(float64, bool) target {
		return func(got float64, ok bool) target { return target{what, limit, unit, got, ok} }
	}
	mib := func(n int64) (float64, bool) { return float64(n) / (1 << 20), n > 0 }
	return []target{
		t("`run`, part of crun's time", 0.75, "")(r.ratio(rowRun, "tare-runtime", "crun")),
		t("`run`, part of runc's time", 0.3, "")(r.ratio(rowRun, "tare-runtime", "runc")),
		t("`exec`, part of crun's time", 0.8, "")(r.ratio(rowExec, "tare-runtime", "crun")),
		t("`create` + `start` + `delete`, part of crun's time", 0.7, "")(r.ratio(rowLife, "tare-runtime", "crun")),
		t(fmt.Sprintf("`run` beside %d other containers, times `run` without them", r.w.o.others), 1.2, "")(r.growth(rowCrowd, rowAlone, "tare-runtime")),
		t("private memory of the child that waits for `start`", 1, " MiB")(mib(medianBytes(r.memory["tare-runtime"]))),
		t("size of tare-runtime, stripped", 6, " MiB")(mib(r.size["tare-runtime"])),
		t("`tare run --rm --network none` of an unpacked image, times tare-runtime's `run`", 3, "")(r.ratio(rowEngine, "tare run", "tare-runtime")),
	}
}

func medianBytes(n []int64) int64 {
	if len(n) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(n))
	return s[len(s)/2]
}

// markdown is the report. The notes are what people wrote below the last one.
func (r *results) markdown(notes string) string {
	var b strings.Builder
	b.WriteString("# Benchmarks\n\nWritten by `make bench`. Everything here is measured in one go on one machine.\n\n")
	r.conditions(&b)
	b.WriteString("\n## What is to be reached\n\n| figure | at most | measured | |\n| --- | ---: | ---: | --- |\n")
	for _, t := range r.targets() {
		verdict, got := "met", fmt.Sprintf("%.2f%s", t.got, t.unit)
		switch {
		case !t.ok:
			verdict, got = "not measured", "—"
		case t.got > t.limit:
			verdict = "**missed**"
		}
		fmt.Fprintf(&b, "| %s | %g%s | %s | %s |\n", t.what, t.limit, t.unit, got, verdict)
	}
	r.times(&b)
	r.ratios(&b)
	r.processor(&b)
	r.writeCounts(&b)
	r.weights(&b)
	r.method(&b)
	b.WriteString("\n" + notesMark + notes)
	return b.String()
}

func (r *results) conditions(b *strings.Builder) {
	w := r.w
	fmt.Fprintf(b, "- %s\n- a page fault in new memory takes %v%s\n- %d rounds after %d to warm up, load average %.2f before and %.2f after\n",
		machine(), w.faultCost, hypervisor(), w.o.rounds, w.o.warmup, r.loadBefore, r.loadAfter)
	for _, p := range w.runtimes {
		fmt.Fprintf(b, "- %s: %s\n", p.name, p.version)
	}
	fmt.Fprintf(b, "- made by `%s` on %s, %s\n", command(w.o), time.Now().UTC().Format(time.DateOnly), runtime.Version())
	for _, s := range w.skipped {
		fmt.Fprintf(b, "- not measured: %s\n", s)
	}
	if r.loadBefore > 1 || r.loadAfter > 1.5*float64(runtime.NumCPU()) {
		b.WriteString("\n**Other programs kept the machine busy: these times are not to be quoted.**\n")
	}
	if w.o.rounds < 100 {
		b.WriteString("\n**Less than 100 rounds: this is a test of the benchmark, not a measurement.**\n")
	}
}

// command is how to get this report, without the directory of the checkout.
func command(o options) string {
	c := fmt.Sprintf("go run ./test/bench -n %d -warmup %d -others %d", o.rounds, o.warmup, o.others)
	for _, p := range [][2]string{{"crun", o.crun}, {"runc", o.runc}} {
		if p[0] != p[1] {
			c += " -" + p[0] + " " + filepath.Base(p[1])
		}
	}
	if o.out != "" {
		c += " -o " + o.out
	}
	return c
}

// columns are who is in the tables.
func (r *results) columns() []string {
	var names []string
	for _, p := range r.w.runtimes {
		names = append(names, p.name)
	}
	if r.w.floor != nil {
		names = append(names, "floor")
	}
	return names
}

func (r *results) head(b *strings.Builder, first string, columns []string) {
	fmt.Fprintf(b, "| %s | %s |\n| --- |%s\n", first, strings.Join(columns, " | "), strings.Repeat(" ---: |", len(columns)))
}

func (r *results) times(b *strings.Builder) {
	columns := r.columns()
	b.WriteString("\n## Time\n\nMilliseconds from the start of the program to its end: median (10th … 90th of 100).\n\n")
	r.head(b, "", columns)
	for _, row := range r.rows() {
		b.WriteString("| " + r.rowName(row) + " |")
		for _, who := range columns {
			b.WriteString(" " + r.cell(row, who) + " |")
		}
		b.WriteString("\n")
	}
	if _, ok := r.get(rowEngine, "tare run"); ok {
		fmt.Fprintf(b, "\n`tare run --rm --network none` of an unpacked image: %s; `tare-runtime run` in turn with it: %s.\n",
			r.cell(rowEngine, "tare run"), r.cell(rowEngine, "tare-runtime"))
	}
}

// rows are those of the table of times.
func (r *results) rows() []string {
	rows := []string{rowRun, rowSeccomp, rowUser, rowRootless, rowCreate, rowStart, rowDelete, rowLife, rowExec}
	if r.w.o.others > 0 {
		rows = append(rows, rowAlone, rowCrowd)
	}
	return rows
}

func (r *results) rowName(row string) string {
	if row == rowCrowd {
		return fmt.Sprintf("`run` beside %d other containers", r.w.o.others)
	}
	return row
}

// ratios writes what part of the peers' time tare-runtime takes.
func (r *results) ratios(b *strings.Builder) {
	columns := slices.DeleteFunc(r.columns(), func(c string) bool { return c == "tare-runtime" || c == "floor" })
	b.WriteString("\n## tare-runtime's part of the others' time\n\nThe median over the rounds of the ratio within a round.\n\n")
	r.head(b, "", columns)
	for _, row := range r.rows() {
		b.WriteString("| " + r.rowName(row) + " |")
		for _, who := range columns {
			if x, ok := r.ratio(row, "tare-runtime", who); ok {
				fmt.Fprintf(b, " %.2f |", x)
			} else {
				b.WriteString(" — |")
			}
		}
		b.WriteString("\n")
	}
}

func (r *results) processor(b *strings.Builder) {
	columns := r.columns()
	b.WriteString("\n## Processor time\n\nMicroseconds, user and system, of the program and what it waited for: median.\n\n")
	r.head(b, "", columns)
	for _, row := range []string{rowRun, rowSeccomp, rowUser, rowRootless, rowCreate, rowStart, rowDelete, rowExec} {
		b.WriteString("| " + row + " |")
		for _, who := range columns {
			if s, ok := r.get(row, who); ok {
				fmt.Fprintf(b, " %d |", s.cpu.Microseconds())
			} else {
				b.WriteString(" — |")
			}
		}
		b.WriteString("\n")
	}
}

func (r *results) weights(b *strings.Builder) {
	columns := r.columns()
	columns = slices.DeleteFunc(columns, func(c string) bool { return c == "floor" })
	b.WriteString("\n## Memory and size\n\n")
	r.head(b, "kB", columns)
	b.WriteString("| private memory of the child that waits for `start` |")
	for _, who := range columns {
		fmt.Fprintf(b, " %d |", medianBytes(r.memory[who])>>10)
	}
	b.WriteString("\n| binary, stripped (crun's and runc's without the libraries that they load) |")
	for _, who := range columns {
		fmt.Fprintf(b, " %d |", r.size[who]>>10)
	}
	b.WriteString("\n")
}

func (r *results) method(b *strings.Builder) {
	fmt.Fprintf(b, `
## How

Every runtime gets the same bundle: what `+"`runc spec`"+` writes, with `+"`/bin/true`"+` of a static busybox, no terminal, ociVersion 1.0.2
(for Debian's crun) and no ambient capabilities. The seccomp profile is %s. State directories are on a tmpfs. In every round each
program runs once, in turns beginning with another one; each starts with its streams on /dev/null; any exit status but 0 ends the
benchmark. All run in a mount namespace in which the empty cgroup2 of a hybrid layout is unmounted, because crun refuses that layout.
create, start and delete are of the same container; delete comes after the process has ended and been reaped. exec runs
`+"`/bin/true`"+` in a container that lives on.

The floor is test/bench/floor.c, static C: the system calls of one run with this configuration, with everything known in
advance and nothing checked. What a runtime takes above it is the runtime's own.

Where the time goes: `+"`go run ./test/bench -profile FILE`"+` (needs strace) lists the system calls of a run by their cost.
`, "`"+r.w.seccomp+"`")
}

// machine names the machine: host, processor, memory, kernel.
func machine() string {
	host, _ := os.Hostname()
	var uts unix.Utsname
	unix.Uname(&uts)
	var info unix.Sysinfo_t
	unix.Sysinfo(&info)
	return fmt.Sprintf("%s: %d × %s, %.1f GiB, Linux %s %s", host, runtime.NumCPU(), processorName(),
		float64(info.Totalram)*float64(info.Unit)/(1<<30), unix.ByteSliceToString(uts.Release[:]), unix.ByteSliceToString(uts.Machine[:]))
}

func processorName() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "processor"
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if name, value, _ := strings.Cut(lines.Text(), ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH + " processor"
}

// hypervisor says under what this machine runs, as far as lscpu(1) knows; empty for none. Whether it has nested paging
// cannot be seen.
func hypervisor() string {
	out, err := exec.Command("lscpu").Output()
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(out)) {
		if name, value, _ := strings.Cut(line, ":"); name == "Hypervisor vendor" {
			return ", under " + strings.TrimSpace(value)
		}
	}
	return ""
}

// readLoad returns the load average of the last minute, or -1.
func readLoad() float64 {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return -1
	}
	first, _, _ := strings.Cut(string(data), " ")
	load, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return -1
	}
	return load
}
