package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// sample is one run of a program: the time around it, the processor time that it and what it waited for took, and with
// world.perf its counts.
type sample struct {
	wall, cpu        time.Duration
	faults, switches int
}

// spawn runs a program with standard streams on /dev/null. Every exit status but 0 ends the benchmark; what the program said is then
// found out by running it once more with a voice.
func (w *world) spawn(argv ...string) (sample, error) { return w.start(nil, os.Environ(), argv) }

func (w *world) start(sys *syscall.SysProcAttr, env, argv []string) (sample, error) {
	if w.perf != nil {
		argv = append(append([]string{}, w.perf...), argv...)
	}
	attr := &os.ProcAttr{Files: []*os.File{w.null, w.null, w.null}, Env: env, Sys: sys}
	start := time.Now()
	p, err := os.StartProcess(argv[0], argv, attr)
	if err != nil {
		return sample{}, err
	}
	state, err := p.Wait()
	s := sample{wall: time.Since(start)}
	if err != nil {
		return s, err
	}
	s.cpu = state.UserTime() + state.SystemTime()
	if !state.Success() {
		return s, fmt.Errorf("%s: %s", strings.Join(argv, " "), state)
	}
	if w.perf != nil {
		err = w.readCounts(&s)
	}
	return s, err
}

// action is something measured: a name for the table's row, a name for its column, and how to do it once.
type action struct {
	row, who string
	once     func() (sample, error)
	prepare  func() error // before once, not measured; may be nil
}

// interleave does every action once per round, beginning with another one in every round so that none always follows the same.
func (w *world) interleave(ctx context.Context, res *results, actions []action) error {
	for round := range w.o.warmup + w.o.rounds {
		for i := range actions {
			if err := ctx.Err(); err != nil {
				return errors.New("interrupted")
			}
			a := actions[(round+i)%len(actions)]
			if a.prepare != nil {
				if err := a.prepare(); err != nil {
					return err
				}
			}
			s, err := a.once()
			if err != nil {
				return err
			}
			if round >= w.o.warmup {
				res.add(a.row, a.who, s)
			}
		}
	}
	return nil
}

// id returns a new name of a container.
func (w *world) id() string {
	w.count++
	return fmt.Sprintf("bench-%d-%d", os.Getpid(), w.count)
}

func (p *peer) args(args ...string) []string {
	return append([]string{p.path, "--root", p.root}, args...)
}

func (w *world) run(p *peer, bundle string) (sample, error) {
	id := w.id()
	w.alive[id] = p
	s, err := w.spawn(p.args("run", "--bundle", w.bundle(bundle), id)...)
	if err == nil {
		delete(w.alive, id)
	}
	return s, err
}

func (w *world) create(p *peer, bundle string) (id string, pid int, s sample, err error) {
	id = w.id()
	w.alive[id] = p
	file := filepath.Join(w.dir, "run", "pid")
	if s, err = w.spawn(p.args("create", "--bundle", w.bundle(bundle), "--pid-file", file, id)...); err != nil {
		return id, 0, s, err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return id, 0, s, err
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(data)))
	return id, pid, s, err
}

func (w *world) remove(p *peer, id string, force bool) (sample, error) {
	args := []string{"delete", id}
	if force {
		args = []string{"delete", "--force", id}
	}
	s, err := w.spawn(p.args(args...)...)
	if err == nil {
		delete(w.alive, id)
	}
	return s, err
}

// await reaps a container's process, which became this process's child.
func await(pid int) error {
	for {
		_, err := syscall.Wait4(pid, nil, 0, nil)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("wait for the container's process %d: %w", pid, err)
		}
	}
}

// lifecycle measures create, start and delete of one container in a row; the pauses between them do not count.
func (w *world) lifecycle(res *results, p *peer, count bool) error {
	id, pid, created, err := w.create(p, "default")
	if err != nil {
		return err
	}
	started, err := w.spawn(p.args("start", id)...)
	if err != nil {
		return err
	}
	if err := await(pid); err != nil {
		return err
	}
	deleted, err := w.remove(p, id, false)
	if err != nil || !count {
		return err
	}
	res.add(rowCreate, p.name, created)
	res.add(rowStart, p.name, started)
	res.add(rowDelete, p.name, deleted)
	res.add(rowLife, p.name, sample{wall: created.wall + started.wall + deleted.wall, cpu: created.cpu + started.cpu + deleted.cpu})
	return nil
}

func (w *world) lifecycles(ctx context.Context, res *results) error {
	for round := range w.o.warmup + w.o.rounds {
		for i := range w.runtimes {
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			if err := w.lifecycle(res, w.runtimes[(round+i)%len(w.runtimes)], round >= w.o.warmup); err != nil {
				return err
			}
		}
	}
	return nil
}

// sleeper starts a container that lives until it is removed.
func (w *world) sleeper(p *peer) (id string, err error) {
	id, _, _, err = w.create(p, "sleep")
	if err == nil {
		_, err = w.spawn(p.args("start", id)...)
	}
	return id, err
}

// execs measures exec of /bin/true in running containers.
func (w *world) execs(ctx context.Context, res *results) error {
	var actions []action
	for _, p := range w.runtimes {
		id, err := w.sleeper(p)
		if err != nil {
			return err
		}
		actions = append(actions, action{row: rowExec, who: p.name, once: func() (sample, error) {
			return w.spawn(p.args("exec", id, "/bin/true")...)
		}})
	}
	err := w.interleave(ctx, res, actions)
	return errors.Join(err, w.removeAll())
}

// removeAll removes every container that is alive.
func (w *world) removeAll() error {
	var errs []error
	for id, p := range w.alive {
		_, err := w.remove(p, id, true)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// waiting measures the private memory of the process that waits for start.
func (w *world) waiting(res *results) error {
	const samples = 5
	for _, p := range w.runtimes {
		for range samples {
			id, pid, _, err := w.create(p, "default")
			if err != nil {
				return err
			}
			n, err := privateMemory(pid)
			if err != nil {
				return err
			}
			res.memory[p.name] = append(res.memory[p.name], n)
			if _, err := w.remove(p, id, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// privateMemory returns the bytes that only this process has in memory.
func privateMemory(pid int) (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var sum int64
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if name, value, _ := strings.Cut(lines.Text(), ":"); strings.HasPrefix(name, "Private_") {
			kB, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read smaps_rollup of %d: %w", pid, err)
			}
			sum += kB << 10
		}
	}
	return sum, lines.Err()
}

// runs are the actions of one row for every runtime.
func (w *world) runs(row, bundle string) []action {
	var actions []action
	for _, p := range w.runtimes {
		actions = append(actions, action{row: row, who: p.name, once: func() (sample, error) { return w.run(p, bundle) }})
	}
	return actions
}

// floorRun is the action of the static program.
func (w *world) floorRun() []action {
	if w.floor == nil {
		return nil
	}
	return []action{{row: rowRun, who: "floor", once: func() (sample, error) {
		argv := append([]string{w.floor[0], w.floor[1], w.floor[2], w.id()}, w.floor[3:]...)
		return w.spawn(argv...)
	}}}
}

// engineRuns compares tare with the runtime that it calls.
func (w *world) engineRuns(ctx context.Context, res *results) error {
	if w.tare == "" {
		return nil
	}
	store := filepath.Join(w.dir, "store")
	argv := []string{w.tare, "run", "--root", store, "--rm", "--network", "none", w.image, "/bin/true"}
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil { // unpacks the image
		return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
	}
	p := w.runtimes[0]
	return w.interleave(ctx, res, []action{
		{row: rowEngine, who: "tare run", once: func() (sample, error) { return w.spawn(argv...) }},
		{row: rowEngine, who: p.name, once: func() (sample, error) { return w.run(p, "default") }},
	})
}

// crowd measures run while other containers live.
func (w *world) crowd(ctx context.Context, res *results) error {
	if w.o.others == 0 {
		return nil
	}
	if err := w.interleave(ctx, res, w.runs(rowAlone, "default")); err != nil {
		return err
	}
	for range w.o.others {
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		if _, err := w.sleeper(w.runtimes[0]); err != nil {
			return errors.Join(err, w.removeAll())
		}
	}
	err := w.interleave(ctx, res, w.runs(rowCrowd, "default"))
	if err = errors.Join(err, w.removeAll()); err != nil {
		return err
	}
	return w.interleave(ctx, res, w.runs(rowAlone, "default"))
}

// measure does everything.
func (w *world) measure(ctx context.Context) (*results, error) {
	res := newResults(w)
	for _, group := range []func() error{
		func() error { return w.interleave(ctx, res, append(w.runs(rowRun, "default"), w.floorRun()...)) },
		func() error { return w.interleave(ctx, res, w.runs(rowSeccomp, "seccomp")) },
		func() error { return w.interleave(ctx, res, w.possible(rowUser, w.runs(rowUser, "userns"))) },
		func() error { return w.interleave(ctx, res, w.rootlessRuns()) },
		func() error { return w.lifecycles(ctx, res) },
		func() error { return w.execs(ctx, res) },
		func() error { return w.counts(ctx, res) },
		func() error { return w.engineRuns(ctx, res) },
		func() error { return w.crowd(ctx, res) },
		func() error { return w.waiting(res) },
		func() error { return res.readSizes(w) },
	} {
		if err := group(); err != nil {
			return nil, err
		}
	}
	return res, nil
}
