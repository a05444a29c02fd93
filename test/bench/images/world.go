package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// world is what is measured with.
type world struct {
	o             options
	dir           string
	res           map[[2]string][]float64 // seconds, or requests per second, by row and who
	skipped       []string
	notes         []string // figures that are no medians
	before, after float64  // load average
	image         image
	stops         []func()
	count         int
	lastDisk      string // where the newest disk is mounted
}

func (w *world) close() {
	for _, stop := range slices.Backward(w.stops) {
		stop()
	}
}

// fresh returns the name of a new directory below the working directory.
func (w *world) fresh(what string) string {
	w.count++
	return filepath.Join(w.dir, fmt.Sprintf("%s-%d", what, w.count))
}

func (w *world) add(row, who string, v float64) {
	w.res[[2]string{row, who}] = append(w.res[[2]string{row, who}], v)
}

// median returns the middle of a row's figures; false if there are none.
func (w *world) median(row, who string) (float64, bool) {
	s := slices.Sorted(slices.Values(w.res[[2]string{row, who}]))
	if len(s) == 0 {
		return 0, false
	}
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2, true
}

// ratio is the median of one by the median of the other.
func (w *world) ratio(row, who, other string) (float64, bool) {
	a, ok := w.median(row, who)
	b, ok2 := w.median(row, other)
	return a / b, ok && ok2
}

// command is a program that is told to end, and not killed at once, when ctx ends: it may have mounts to undo.
func command(ctx context.Context, argv ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	return c
}

// run runs a program to its end and returns the seconds that it took.
func run(ctx context.Context, env []string, argv ...string) (float64, error) {
	c := command(ctx, argv...)
	c.Env = append(os.Environ(), env...)
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	start := time.Now()
	err := c.Run()
	took := time.Since(start).Seconds()
	if err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, tail(said.String()))
	}
	return took, nil
}

func tail(s string) string { return s[max(0, len(s)-2000):] }

// start runs a program until the world ends, and waits until it answers at the address.
func (w *world) start(ctx context.Context, address string, env []string, argv ...string) (stop func(), pid int, err error) {
	log := w.fresh("log")
	out, err := os.Create(log)
	if err != nil {
		return nil, 0, err
	}
	defer out.Close()
	c := exec.Command(argv[0], argv[1:]...)
	c.Env = append(os.Environ(), env...)
	c.Stdout, c.Stderr = out, out
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := c.Start(); err != nil {
		return nil, 0, err
	}
	done := make(chan struct{})
	go func() { c.Wait(); close(done) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		syscall.Kill(-c.Process.Pid, syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(10 * time.Second):
		}
		syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		<-done
	}
	w.stops = append(w.stops, stop)
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		conn, err := net.Dial(network, address)
		if err == nil {
			conn.Close()
			return stop, c.Process.Pid, nil
		}
		select {
		case <-done:
			said, _ := os.ReadFile(log)
			return nil, 0, fmt.Errorf("%s ended: %s", argv[0], tail(string(said)))
		case <-ctx.Done():
			return nil, 0, errors.New("interrupted")
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return nil, 0, fmt.Errorf("%s does not answer at %s", argv[0], address)
		}
	}
}

// port returns an address on loopback that nobody listens on.
func port() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// registry starts tared over a new directory.
func (w *world) registry(ctx context.Context) (address string, pid int, err error) {
	if address, err = port(); err != nil {
		return "", 0, err
	}
	_, pid, err = w.start(ctx, address, nil, filepath.Join(w.o.bin, "tared"), "registry", "--listen", address, "--root", w.fresh("registry"))
	return address, pid, err
}

// action is one thing to measure: who does it, once, and what comes before and after without counting.
type action struct {
	row, who       string
	prepare, after func() error
	once           func() (float64, error)
}

// interleave does every action once a round, beginning with another one each time; the first round does not count.
func (w *world) interleave(ctx context.Context, actions []action) error {
	for round := range w.o.rounds + 1 {
		for i := range actions {
			a := actions[(round+i)%len(actions)]
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			for _, step := range []func() error{a.prepare, settle} {
				if step == nil {
					continue
				}
				if err := step(); err != nil {
					return err
				}
			}
			v, err := a.once()
			if err != nil {
				return err
			}
			if a.after != nil {
				if err := a.after(); err != nil {
					return err
				}
			}
			fmt.Fprintf(os.Stderr, "%d %s: %s: %.3f\n", round, a.row, a.who, v)
			if round > 0 {
				w.add(a.row, a.who, v)
			}
		}
	}
	return nil
}

// settle writes out what the one before left in memory, so that the next does not wait for it.
func settle() error {
	syscall.Sync()
	return nil
}

func load() float64 {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return -1
	}
	first, _, _ := strings.Cut(string(data), " ")
	v, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return -1
	}
	return v
}

// put sends what r yields and wants the status.
func put(ctx context.Context, method, url, mediaType string, r io.Reader, size int64, want int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, r)
	if err != nil {
		return nil, err
	}
	req.ContentLength = size
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	resp.Body.Close()
	if resp.StatusCode != want {
		return nil, fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, tail(string(body)))
	}
	return resp, nil
}
