package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// countRounds is how often each command is counted; the least counts.
const countRounds = 20

// counts counts page faults and context switches, which vary less between machines than times do.
func (w *world) counts(ctx context.Context, res *results) error {
	perf, err := exec.LookPath("perf")
	if err != nil {
		w.skipped = append(w.skipped, "counts: perf is not installed")
		return nil
	}
	rounds, warmup := w.o.rounds, w.o.warmup
	w.o.rounds, w.o.warmup = min(rounds, countRounds), 1
	w.perf = []string{perf, "stat", "-x,", "-e", "page-faults,context-switches", "-o", w.countsFile()}
	defer func() { w.o.rounds, w.o.warmup, w.perf = rounds, warmup, nil }()
	res.counts = newResults(w)
	for _, group := range []func() error{
		func() error { return w.interleave(ctx, res.counts, append(w.runs(rowRun, "default"), w.floorRun()...)) },
		func() error { return w.lifecycles(ctx, res.counts) },
		func() error { return w.execs(ctx, res.counts) },
	} {
		if err := group(); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) countsFile() string { return filepath.Join(w.dir, "run", "counts") }

// readCounts reads what perf has written.
func (w *world) readCounts(s *sample) error {
	data, err := os.ReadFile(w.countsFile())
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Split(line, ",")
		if len(f) < 3 {
			continue
		}
		n, err := strconv.Atoi(f[0])
		switch {
		case f[2] == "page-faults" && err == nil:
			s.faults = n
		case f[2] == "context-switches" && err == nil:
			s.switches = n
		}
	}
	if s.faults == 0 {
		return fmt.Errorf("perf counted nothing: %s", data)
	}
	return nil
}

// writeCounts writes the table of counts.
func (r *results) writeCounts(b *strings.Builder) {
	if r.counts == nil {
		return
	}
	columns := r.columns()
	b.WriteString("\n## Counts\n\nPage faults and context switches, as perf counts them, of the program and what it waited for: the least of " +
		strconv.Itoa(min(r.w.o.rounds, countRounds)) + ".\n\n")
	r.head(b, "", columns)
	for _, row := range []string{rowRun, rowCreate, rowStart, rowDelete, rowExec} {
		b.WriteString("| " + row + " |")
		for _, who := range columns {
			faults, switches := -1, -1
			for _, s := range r.counts.samples[[2]string{row, who}] {
				if faults < 0 || s.faults < faults {
					faults = s.faults
				}
				if switches < 0 || s.switches < switches {
					switches = s.switches
				}
			}
			if faults < 0 {
				b.WriteString(" — |")
			} else {
				fmt.Fprintf(b, " %d, %d |", faults, switches)
			}
		}
		b.WriteString("\n")
	}
}

// faultCost is what a page fault in anonymous memory takes on this machine, the kernel's clearing of the page included:
// the median of rounds. It tells machines with nested paging from others.
func faultCost() time.Duration {
	const pages, rounds = 1024, 9
	var took []time.Duration
	size := os.Getpagesize()
	for range rounds {
		mem, err := unix.Mmap(-1, 0, pages*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return 0
		}
		unix.Madvise(mem, unix.MADV_NOHUGEPAGE) // where the kernel has none it gives none
		begin := time.Now()
		for i := 0; i < len(mem); i += size {
			mem[i] = 1
		}
		took = append(took, time.Since(begin)/pages)
		unix.Munmap(mem)
	}
	return median(took)
}
