// Command images measures what issue-sized work with images costs: pulling an image into a cold store until it can run,
// against the peers and against the floor of decompressing and copying; and the registry against nginx serving the same
// bytes as a static file. It writes its part of docs/benchmarks.md and leaves the rest.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// options are the command line.
type options struct {
	rounds int    // of every group
	mib    int64  // compressed size of each of the image's layers
	blob   int64  // MiB of the blob that the servers give and take
	out    string // report; empty: standard output only
	bin    string // directory of tare and tared
	cache  string // where the image is kept between two benchmarks
	only   string // a group; empty: all
}

func parse(args []string) (o options, err error) {
	set := flag.NewFlagSet("images", flag.ContinueOnError)
	set.IntVar(&o.rounds, "n", 7, "measured `rounds`, after one to warm up")
	set.Int64Var(&o.mib, "layer", 60, "compressed size of each of the five layers in `MiB`; below 60 the report says that it is only a test")
	set.Int64Var(&o.blob, "blob", 256, "size of the servers' blob in `MiB`")
	set.StringVar(&o.out, "o", "", "`file` to write this part of the report into, besides standard output")
	set.StringVar(&o.bin, "bin", "bin", "`directory` of tare and tared")
	set.StringVar(&o.cache, "cache", ".cache/bench", "`directory` to keep the image in between two benchmarks")
	set.StringVar(&o.only, "only", "", "measure one `group`: pull, server or memory")
	if err = set.Parse(args); err != nil {
		return o, err
	}
	if set.NArg() > 0 || o.rounds < 1 || o.mib < 1 || o.blob < 1 {
		return o, errors.New("images: no arguments, and only positive numbers")
	}
	for _, p := range []*string{&o.bin, &o.cache} {
		if *p, err = filepath.Abs(*p); err != nil {
			return o, err
		}
	}
	return o, nil
}

// insideEnv holds the working directory of the second start, the one in a mount namespace of its own.
const insideEnv = "TARE_BENCH_INSIDE"

func main() {
	if len(os.Args) > 1 && os.Args[1] == decompressArg {
		os.Exit(decompressMain(os.Args[2:]))
	}
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	switch {
	case err != nil:
	case os.Getuid() != 0:
		err = errors.New("unpacking with owners needs root")
	case os.Getenv(insideEnv) == "":
		os.Exit(outside())
	default:
		err = inside(o, os.Getenv(insideEnv))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

// outside runs this program again in a private mount namespace, in which the peers may leave what they like, and removes
// the working directory when it ended. The directory is beside the cache: on a disk, where stores live, not on a tmpfs.
func outside() int {
	runtime.LockOSThread() // Pdeathsig is about the parent's thread
	dir, err := os.MkdirTemp("/var/tmp", "tare-bench.")
	if err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	signal.Ignore(os.Interrupt)
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.Env = append(os.Environ(), insideEnv+"="+dir)
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	if err := c.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		return 1
	}
	return 0
}

// inside measures and reports.
func inside(o options, dir string) error {
	os.Unsetenv(insideEnv)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	w := &world{o: o, dir: dir, res: map[[2]string][]float64{}, before: load()}
	defer w.close()
	for _, g := range []struct {
		name string
		run  func(context.Context) error
	}{{"pull", w.pulls}, {"server", w.servers}, {"memory", w.memory}} {
		if o.only != "" && o.only != g.name {
			continue
		}
		if err := g.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
	}
	w.after = load()
	text := w.markdown()
	fmt.Print(text)
	if o.out == "" {
		return nil
	}
	return insert(o.out, text)
}

const (
	beginMark = "<!-- images: begin; written by go run ./test/bench/images -->\n"
	endMark   = "<!-- images: end -->\n"
)

// insert puts the text between the marks of the file, which get to its end if it has none.
func insert(path, text string) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	head, rest, found := strings.Cut(string(old), beginMark)
	tail := ""
	if found {
		_, tail, _ = strings.Cut(rest, endMark)
	} else {
		head += "\n"
	}
	return os.WriteFile(path, []byte(head+beginMark+text+endMark+tail), 0o644)
}
