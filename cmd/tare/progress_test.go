package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/transfer"
	"github.com/tare-oci/tare/internal/getopt"
)

// scene gives a progress events at chosen times and returns what it writes.
func scene(mode string, steps ...func(p *progress)) string {
	var b strings.Builder
	p := &progress{mode: mode, w: &b, now: func() time.Time { return time.Unix(1000, 0) }, by: map[digest.Digest]*item{}}
	for _, s := range steps {
		s(p)
	}
	return b.String()
}

func at(seconds int64, kind transfer.Kind, name string, done, size int64) func(*progress) {
	return func(p *progress) {
		p.now = func() time.Time { return time.Unix(1000+seconds, 0) }
		p.take(transfer.Event{Kind: kind, Descriptor: v1.Descriptor{MediaType: "a/b", Digest: digest.FromString(name), Size: size}, Done: done})
	}
}

func TestProgressPlain(t *testing.T) {
	got := scene("plain", at(0, transfer.Planned, "x", 0, 2e6), at(0, transfer.Planned, "y", 0, 5), at(1, transfer.Copying, "x", 1e5, 2e6),
		at(2, transfer.Copying, "x", 1e6, 2e6), at(3, transfer.Copying, "x", 11e5, 2e6), at(9, transfer.Copying, "x", 15e5, 2e6),
		at(10, transfer.Done, "x", 2e6, 2e6), at(10, transfer.Unpacked, "x", 2e6, 2e6), at(11, transfer.Exists, "y", 5, 5))
	want := "2d711642b726       2 MB   50%\n" +
		"2d711642b726       2 MB   75%  175 kB/s\n" +
		"2d711642b726       2 MB  done\n" +
		"2d711642b726       2 MB  unpacked\n" +
		"a1fce4363854        5 B  there already\n"
	if got != want {
		t.Errorf("wrote\n%swant\n%s", got, want)
	}
}

func TestProgressJSON(t *testing.T) {
	var e struct {
		Kind, Digest, MediaType string
		Size, Done              int64
	}
	got := scene("json", at(0, transfer.Copying, "x", 3, 7))
	if err := json.Unmarshal([]byte(got), &e); err != nil || e.Kind != "copying" || e.Size != 7 || e.Done != 3 || e.MediaType != "a/b" {
		t.Errorf("%s: %+v, %v", got, e, err)
	}
}

// TestProgressBar draws what is under way again and again in the same place, and what is final once.
func TestProgressBar(t *testing.T) {
	draw := func(p *progress) { p.draw() }
	got := scene("bar", at(0, transfer.Planned, "x", 0, 100), at(0, transfer.Planned, "y", 0, 100), draw, at(1, transfer.Copying, "x", 50, 100), draw,
		at(2, transfer.Unpacked, "x", 100, 100), draw, draw)
	frames := strings.Split(got, "\x1b[2A\x1b[J")
	if len(frames) != 3 || strings.Count(got, "\x1b[1A\x1b[J") != 1 || !strings.Contains(frames[1], " 50%") || !strings.Contains(frames[1], "[=========") ||
		strings.Count(got, "unpacked") != 1 {
		t.Errorf("%d frames: %q", len(frames), got)
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1 kB", 1234567: "1.23 MB", 5e12: "5 TB", 9e18: "9e+03 PB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestComplete(t *testing.T) {
	list := []command{
		{name: "pull", setup: func(s *getopt.Set) func([]string) (int, error) {
			var b bool
			var v string
			s.Bool(&b, "all", 'a', "")
			s.String(&v, "root", 0, "DIR", "")
			return nil
		}},
		{name: "run", first: true, operands: "image", setup: func(s *getopt.Set) func([]string) (int, error) { return nil }},
		{name: "image", sub: []command{{name: "ls", setup: func(*getopt.Set) func([]string) (int, error) { return nil }}}},
		{name: "secret", hidden: true},
	}
	offer := func(kind, root string) []string { return []string{kind + "1", kind + root} }
	for line, want := range map[string]string{
		"":                  "image pull run",
		"p":                 "pull",
		"image ":            "ls",
		"pull --":           "--all --help --root",
		"pull --root ":      "",
		"run ":              "image image1",
		"run x ":            "",
		"run x -":           "",
		"nothing ":          "",
		"pull --root /x -a": "",
	} {
		if got := complete(list, strings.Split(line, " "), offer); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}
