package layer

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// TestMemory unpacks a large layer of each codec in a process of its own: memory is bounded by the decompressor's window and
// 64 MiB, whatever the layer's size.
func TestMemory(t *testing.T) {
	if kind := os.Getenv("LAYER_MEMORY"); kind != "" {
		unpackLarge(t, kind, os.Getenv("LAYER_DIR"))
		return
	}
	for kind, window := range map[string]int64{"plain": 0, "gzip": 0, "zstd": 8 << 20, "zstd64": 64 << 20, "xz": 16 << 20} {
		t.Run(kind, func(t *testing.T) {
			dir, err := os.MkdirTemp("/dev/shm", "tare-layer-")
			if err != nil {
				dir = t.TempDir()
			}
			defer os.RemoveAll(dir)
			cmd := exec.Command(os.Args[0], "-test.run=^TestMemory$", "-test.v")
			cmd.Env = append(os.Environ(), "LAYER_MEMORY="+kind, "LAYER_DIR="+dir)
			out, err := cmd.CombinedOutput()
			_, rest, ok := strings.Cut(string(out), "grown by ")
			number, _, _ := strings.Cut(rest, " ")
			grown, parseErr := strconv.ParseInt(number, 10, 64)
			if err != nil || !ok || parseErr != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if limit := 64<<20 + window; grown > limit {
				t.Errorf("memory grew by %d MiB, more than %d", grown>>20, limit>>20)
			}
		})
	}
}

// unpackLarge unpacks half a gigabyte in one file, and 50 000 small ones, all made while they are read.
func unpackLarge(t *testing.T, kind, dir string) {
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	r, w, err := os.Pipe() // the other end's memory is the other end's
	if err != nil {
		t.Fatal(err)
	}
	large := exec.Command(os.Args[0], "-test.run=^TestMakeLarge$")
	large.Env = append(os.Environ(), "LAYER_LARGE="+kind)
	large.ExtraFiles = []*os.File{w}
	if err := large.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	before := peak(t)
	result, err := Unpack(context.Background(), root, r, Options{})
	if err != nil || result.Entries != 50_001 {
		t.Fatalf("%+v, %v", result, err)
	}
	fmt.Println("grown by", peak(t)-before, "bytes")
	if err := large.Wait(); err != nil {
		t.Error(err)
	}
}

// TestMakeLarge writes the layer for TestMemory to its descriptor 3.
func TestMakeLarge(t *testing.T) {
	kind := os.Getenv("LAYER_LARGE")
	if kind == "" {
		return // only TestMemory's other half
	}
	out := bufio.NewWriter(os.NewFile(3, "pipe"))
	var c io.WriteCloser
	var err error
	switch kind {
	case "plain":
		c = nopCloser{out}
	case "gzip":
		c, err = gzip.NewWriterLevel(out, gzip.BestSpeed)
	case "zstd":
		c, err = zstd.NewWriter(out, zstd.WithEncoderLevel(zstd.SpeedFastest))
	case "zstd64":
		c, err = zstd.NewWriter(out, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(64<<20))
	case "xz":
		c, err = xz.WriterConfig{DictCap: 16 << 20}.NewWriter(out)
	}
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(c)
	size := int64(512 << 20)
	if kind == "xz" {
		size = 32 << 20 // which takes as long
	}
	writeEntry(t, w, &tar.Header{Name: "large", Size: size, Mode: 0o644}, "")
	line := []byte(strings.Repeat("a line of text that repeats itself ", 30_000))
	for left := size; left > 0; {
		n, err := w.Write(line[:min(int64(len(line)), left)])
		if err != nil {
			t.Fatal(err)
		}
		left -= int64(n)
	}
	for i := range 50_000 {
		writeEntry(t, w, &tar.Header{Name: fmt.Sprintf("d%d/%d", i%100, i), Mode: 0o644}, "")
	}
	for _, f := range []func() error{w.Close, c.Close, out.Flush} {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
