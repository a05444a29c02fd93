package main

import (
	"fmt"
	"iter"
	"runtime"
	"strings"
	"time"
)

func lines(s string) iter.Seq[string] { return strings.SplitSeq(s, "\n") }

// markdown is this program's part of the report.
func (w *world) markdown() string {
	var b strings.Builder
	b.WriteString("\n# Images and registries\n\n")
	fmt.Fprintf(&b, "Written by `go run ./test/bench/images -n %d -layer %d -blob %d` on %s, %s; medians of interleaved rounds, load average %.2f before and %.2f after.\n",
		w.o.rounds, w.o.mib, w.o.blob, time.Now().UTC().Format(time.DateOnly), runtime.Version(), w.before, w.after)
	if w.o.mib < 60 || w.o.rounds < 5 {
		b.WriteString("\n**Small layers or few rounds: this is a test of the benchmark, not a measurement.**\n")
	}
	if w.before > 1 {
		b.WriteString("\n**Other programs kept the machine busy: these times are not to be quoted.**\n")
	}
	for _, s := range w.skipped {
		fmt.Fprintf(&b, "\nNot measured: %s.\n", s)
	}
	b.WriteString("\n| figure | target | measured | |\n| --- | ---: | ---: | --- |\n")
	for _, t := range w.targets() {
		fmt.Fprintf(&b, "| %s |\n", t)
	}
	w.pullTable(&b)
	w.serverTable(&b)
	for _, n := range w.notes {
		fmt.Fprintf(&b, "\n%s\n", n)
	}
	b.WriteString(`
Every pull is from tared on loopback into a store that does not exist yet, and ends when the image can run: all layers unpacked. For
containerd only the client's time counts, not the start of the daemon. Each has a new ext4 file system of its own, on a loop device
with direct I/O, because ext4 makes files slowly for minutes after others were deleted; all caches are written out before each. The floor is the longer of two
things: all layers decompressed by the library that tare uses into nothing, each in a goroutine; and ` + "`cp -a`" + ` of the
unpacked tree. The servers' blob is read and written over a socket by the simplest client possible; nginx writes a PUT without hashing it and
without fsync. Requests per second are over ` + fmt.Sprint(connections) + ` connections that ask again as soon as the answer is there.
`)
	return b.String()
}

// targets are the rows of the table of what is to be reached.
func (w *world) targets() []string {
	var rows []string
	row := func(what, sign string, limit float64, got float64, ok bool) {
		verdict := "met"
		if !ok {
			rows = append(rows, fmt.Sprintf("%s | %s %g | — | not measured", what, sign, limit))
			return
		}
		if sign == "≥" && got < limit || sign == "≤" && got > limit {
			verdict = "**missed**"
		}
		rows = append(rows, fmt.Sprintf("%s | %s %g | %.2f | %s", what, sign, limit, got, verdict))
	}
	best, who := 0.0, "nobody"
	for _, p := range []string{"skopeo + umoci", "podman", "containerd"} {
		if v, ok := w.median(rowPull, p); ok && (best == 0 || v < best) {
			best, who = v, p
		}
	}
	ours, ok := w.median(rowPull, "tare")
	row("pull: time of the best peer ("+who+") by ours", "≥", 2, best/ours, ok && best > 0)
	d, ok1 := w.median(rowPull, "decompress")
	c, ok2 := w.median(rowPull, "cp -a")
	row("pull: our time by the floor's", "≤", 1.3, ours/max(d, c), ok && ok1 && ok2)
	got, ok := w.ratio(rowGet, "nginx", "tared")
	row("registry: nginx's time for a blob by ours", "≥", 0.9, got, ok)
	got, ok = w.ratio(rowPut, "nginx", "tared")
	row("registry: nginx's time for taking a blob by ours", "≥", 0.55, got, ok)
	got, ok = w.ratio(rowManifest, "tared", "nginx")
	row("registry: our requests per second for a manifest by nginx's", "≥", 0.5, got, ok)
	return rows
}

func (w *world) pullTable(b *strings.Builder) {
	if _, ok := w.median(rowPull, "tare"); !ok {
		return
	}
	var stored int64
	for _, d := range w.image.Layers {
		stored += d.Size
	}
	fmt.Fprintf(b, "\n## Pull\n\nFive layers of real files, %d MiB compressed, %d MiB unpacked, %d entries; seconds.\n\n",
		stored>>20, w.image.Unpacked>>20, w.image.Files)
	who := []string{"tare", "skopeo + umoci", "podman", "containerd", "decompress", "cp -a"}
	fmt.Fprintf(b, "| %s |\n|%s\n|", strings.Join(who, " | "), strings.Repeat(" ---: |", len(who)))
	for _, p := range who {
		if v, ok := w.median(rowPull, p); ok {
			fmt.Fprintf(b, " %.2f |", v)
		} else {
			b.WriteString(" — |")
		}
	}
	b.WriteString("\n")
}

func (w *world) serverTable(b *strings.Builder) {
	if _, ok := w.median(rowGet, "tared"); !ok {
		return
	}
	fmt.Fprintf(b, "\n## The registry\n\n| | tared | nginx |\n| --- | ---: | ---: |\n")
	for _, r := range []string{rowGet, rowPut, rowManifest} {
		unit := fmt.Sprintf("%s of %d MiB, seconds", r, w.o.blob)
		if r == rowManifest {
			unit = r + " by digest, requests per second"
		}
		fmt.Fprintf(b, "| %s |", unit)
		for _, p := range []string{"tared", "nginx"} {
			if v, ok := w.median(r, p); ok {
				fmt.Fprintf(b, " %.3g |", v)
			} else {
				b.WriteString(" — |")
			}
		}
		b.WriteString("\n")
	}
}
