package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/transfer"
	"github.com/tare-oci/tare/internal/getopt"
	"github.com/tare-oci/tare/internal/sys/pty"
)

// A progress tells people, on standard error, what is moved.
type progress struct {
	mode string // auto, bar, plain, json, none
	w    io.Writer
	now  func() time.Time

	mu    sync.Mutex
	items []*item // in the order in which they were planned
	by    map[digest.Digest]*item
	drawn int // lines on the terminal that are ours
	stop  chan struct{}
	ended sync.WaitGroup
}

// An item is one blob, manifest or index.
type item struct {
	event  transfer.Event
	begun  time.Time
	from   int64 // bytes that were there at begun
	told   time.Time
	closed bool // its line on the terminal is final
}

func progressOption(set *getopt.Set, p *progress) {
	p.mode = "auto"
	set.Func("progress", 0, "MODE", "how to tell what is moved: auto, bar, plain, json (lines of JSON on standard error) or none", func(v string) error {
		switch v {
		case "auto", "bar", "plain", "json", "none":
			p.mode = v
			return nil
		}
		return fmt.Errorf("%q is none of auto, bar, plain, json, none", v)
	})
}

// begin returns what to give events to. The caller calls end.
func (p *progress) begin(quiet bool) func(transfer.Event) {
	p.w, p.now, p.by = os.Stderr, time.Now, map[digest.Digest]*item{}
	if quiet {
		p.mode = "none"
	}
	if p.mode == "auto" {
		p.mode = "plain"
		if pty.IsTerminal(os.Stderr) {
			p.mode = "bar"
		}
	}
	if p.mode == "none" {
		return nil
	}
	if p.mode == "bar" {
		p.stop = make(chan struct{})
		p.ended.Go(p.redraw)
	}
	return p.take
}

// end draws for the last time.
func (p *progress) end() {
	if p.stop != nil {
		close(p.stop)
		p.ended.Wait()
		p.stop = nil
	}
}

func (p *progress) redraw() {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.draw()
		case <-p.stop:
			p.draw()
			return
		}
	}
}

func (p *progress) take(e transfer.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	it := p.by[e.Descriptor.Digest]
	if it == nil {
		it = &item{}
		p.by[e.Descriptor.Digest] = it
		p.items = append(p.items, it)
	}
	was := it.event.Kind
	if e.Kind == transfer.Copying && was != transfer.Copying {
		it.begun, it.from = now, e.Done
	}
	it.event = e
	switch p.mode {
	case "json":
		p.json(e)
	case "plain":
		p.plain(it, was, now)
	}
}

// json writes an event as one line. Nobody can be told of a broken standard error.
func (p *progress) json(e transfer.Event) {
	line, err := json.Marshal(struct {
		Kind      transfer.Kind `json:"kind"`
		Digest    digest.Digest `json:"digest"`
		MediaType string        `json:"mediaType"`
		Size      int64         `json:"size"`
		Done      int64         `json:"done"`
	}{e.Kind, e.Descriptor.Digest, e.Descriptor.MediaType, e.Descriptor.Size, e.Done})
	if err == nil {
		fmt.Fprintf(p.w, "%s\n", line)
	}
}

// plainEvery is how often a plain line tells that something is still moving.
const plainEvery = 5 * time.Second

func (p *progress) plain(it *item, was transfer.Kind, now time.Time) {
	e := it.event
	again := e.Kind == transfer.Copying && now.Sub(it.told) >= plainEvery
	if e.Kind == transfer.Planned || e.Kind == was && !again || e.Kind == transfer.Copying && it.told.IsZero() && now.Sub(it.begun) < time.Second {
		return
	}
	it.told = now
	fmt.Fprintf(p.w, "%s  %9s  %s\n", shortDigest(e.Descriptor.Digest), size(e.Descriptor.Size), phrase(it, now))
}

// phrase says in words how far an item is.
func phrase(it *item, now time.Time) string {
	e := it.event
	switch e.Kind {
	case transfer.Planned:
		return "waiting"
	case transfer.Waiting:
		return "waiting for another process"
	case transfer.Copying:
		text := fmt.Sprintf("%3d%%", percent(e.Done, e.Descriptor.Size))
		if d := now.Sub(it.begun); d > time.Second {
			text += "  " + size(int64(float64(e.Done-it.from)/d.Seconds())) + "/s"
		}
		return text
	case transfer.Exists:
		return "there already"
	case transfer.Mounted:
		return "taken over from another repository"
	case transfer.Skipped:
		return "left out: not to be had"
	}
	return string(e.Kind)
}

func percent(done, total int64) int64 {
	if total <= 0 {
		return 100
	}
	return int64(float64(done) / float64(total) * 100)
}

// maxBars is how many lines the terminal gets at once.
const maxBars = 20

// draw writes lines that are final above, and the lines of what is under way in place of those of the last time.
func (p *progress) draw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	width := 80
	if s, err := pty.GetSize(os.Stderr); err == nil && s.Cols > 20 {
		width = int(s.Cols)
	}
	var b strings.Builder
	if p.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\x1b[J", p.drawn)
	}
	now := p.now()
	var active []*item
	for _, it := range p.items {
		switch it.event.Kind {
		case transfer.Exists, transfer.Mounted, transfer.Skipped, transfer.Unpacked:
			if !it.closed {
				it.closed = true
				b.WriteString(p.line(it, now, width))
			}
		case transfer.Planned, transfer.Copying, transfer.Waiting, transfer.Done:
			active = append(active, it)
		}
	}
	shown := active[:min(len(active), maxBars)]
	for _, it := range shown {
		b.WriteString(p.line(it, now, width))
	}
	p.drawn = len(shown)
	fmt.Fprint(p.w, b.String())
}

func (p *progress) line(it *item, now time.Time, width int) string {
	e := it.event
	text := fmt.Sprintf("%s  %9s  %s", shortDigest(e.Descriptor.Digest), size(e.Descriptor.Size), phrase(it, now))
	if room := width - 62; e.Kind == transfer.Copying && room > 0 {
		bars := min(room, 40)
		full := int(percent(e.Done, e.Descriptor.Size)) * bars / 100
		text = fmt.Sprintf("%-45s [%s%s]", text, strings.Repeat("=", full), strings.Repeat(" ", bars-full))
	}
	if r := []rune(text); len(r) >= width {
		text = string(r[:width-1])
	}
	return text + "\n"
}

// shortDigest is what people see of a digest.
func shortDigest(d digest.Digest) string {
	if d.Validate() != nil {
		return "?"
	}
	return d.Encoded()[:12]
}

// size is a number of bytes as people read it, in powers of 1000 as docker has it.
func size(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB"}
	f, i := float64(n), 0
	for f >= 1000 && i < len(units)-1 {
		f, i = f/1000, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.3g %s", f, units[i])
}

// printJSON writes v on standard output, as every listing does with --json.
func printJSON(v any) error {
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	return out.Encode(v)
}

// noFormat takes docker's --format to refuse it in a sentence.
func noFormat(set *getopt.Set) {
	set.Hidden("format", 0, "TEMPLATE", func(string) error {
		return errors.New("templates are not supported: --json writes everything as JSON")
	})
}
