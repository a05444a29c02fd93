package main

import (
	"fmt"
	"time"

	"github.com/tare-oci/tare/internal/sys/scheduler"
)

// phases are how long the parts of a command took, for --trace-phases. They lie one behind the other: their sum is the
// whole command.
type phases struct {
	last time.Time // the end of the last one
	list []phase
}

type phase struct {
	name string
	took time.Duration
}

// tracePhases begins with what has passed already. main began at the time begin. Before it were the first start, that
// through the read-only mount and Go's: no clock was read there, but nothing waits in them, so that their time is the
// processor time of this process.
func tracePhases(begin time.Time) *phases {
	now := time.Now()
	parsed := now.Sub(begin)
	entry := max(scheduler.ProcessorTime()-parsed, 0)
	return &phases{last: now, list: []phase{{"entry", entry}, {"parse the command line", parsed}}}
}

// end records the phase that ends now.
func (p *phases) end(name string) {
	now := time.Now()
	p.list = append(p.list, phase{name, now.Sub(p.last)})
	p.last = now
}

// print logs all phases and their sum; what came after the last one is called "return".
func (p *phases) print(log *logger, command string) {
	p.end("return")
	var total time.Duration
	for _, f := range p.list {
		log.print("info", fmt.Sprintf("phase of %s: %s: %d us", command, f.name, f.took.Microseconds()))
		total += f.took
	}
	log.print("info", fmt.Sprintf("phases of %s: total: %d us", command, total.Microseconds()))
}
