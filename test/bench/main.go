package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
)

// options are the command line.
type options struct {
	rounds  int    // measured rounds of every group
	warmup  int    // rounds before them that do not count
	others  int    // containers that live beside for the last group; 0: no such group
	out     string // file to write the report to; empty: none
	profile string // instead of measuring, write where the time of a run goes to this file
	bin     string // directory of tare and tare-runtime
	crun    string // program
	runc    string // program
}

func parse(args []string) (o options, err error) {
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.IntVar(&o.rounds, "n", 100, "measured `rounds`; below 100 the report says that it is only a test")
	set.IntVar(&o.warmup, "warmup", 10, "`rounds` before them that do not count")
	set.IntVar(&o.others, "others", 1000, "other `containers` alive in the last group, 0: leave the group out")
	set.StringVar(&o.out, "o", "", "`file` to write the report to, besides standard output")
	set.StringVar(&o.profile, "profile", "", "do not measure, write to `file` which system calls a run spends its time in (needs strace)")
	set.StringVar(&o.bin, "bin", "bin", "`directory` of tare and tare-runtime")
	set.StringVar(&o.crun, "crun", "crun", "`program` to compare with, a path or a name")
	set.StringVar(&o.runc, "runc", "runc", "`program` to compare with, a path or a name")
	if err = set.Parse(args); err != nil {
		return o, err
	}
	if set.NArg() > 0 || o.rounds < 1 || o.warmup < 0 || o.others < 0 {
		return o, errors.New("bench: no arguments, and no negative numbers")
	}
	return o, nil
}

// insideEnv holds the working directory of the second start, the one in a mount namespace of its own.
const insideEnv = "TARE_BENCH_INSIDE"

func main() {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	switch {
	case err != nil:
	case os.Getuid() != 0:
		err = errors.New("containers need root here")
	case os.Getenv(insideEnv) == "":
		os.Exit(outside())
	default:
		err = inside(o, os.Getenv(insideEnv))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// outside runs this program again in a private mount namespace and removes what is left when it ended.
func outside() int {
	runtime.LockOSThread() // Pdeathsig is about the parent's thread
	dir, err := os.MkdirTemp("", "tare-bench.")
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	signal.Ignore(os.Interrupt) // the terminal's goes to the child too, which cleans up and ends
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.Env = append(os.Environ(), insideEnv+"="+dir)
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	var exit *exec.ExitError
	switch err := c.Run(); {
	case errors.As(err, &exit):
		return 1
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

// inside measures and reports.
func inside(o options, dir string) error {
	os.Unsetenv(insideEnv)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	debug.SetGCPercent(-1) // no collection in the middle of a run; a whole benchmark allocates a few megabytes
	w, err := newWorld(o, dir)
	if err != nil {
		return err
	}
	defer w.close()
	if o.profile != "" {
		return w.profile(ctx, o.profile)
	}
	before := readLoad()
	res, err := w.measure(ctx)
	if err != nil {
		return err
	}
	res.loadBefore, res.loadAfter = before, readLoad()
	text := res.markdown(notes(o.out))
	if _, err := io.WriteString(os.Stdout, text); err != nil || o.out == "" {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
		return err
	}
	return os.WriteFile(o.out, []byte(text), 0o644)
}

// notesMark separates what the tool writes from what people write about it, which the tool keeps.
const notesMark = "<!-- Below this line the tool keeps what it finds. -->\n"

// notes returns what people wrote into the report that is to be replaced.
func notes(path string) string {
	if path == "" {
		return ""
	}
	old, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	_, text, _ := strings.Cut(string(old), notesMark)
	return text
}
