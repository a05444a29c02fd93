package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/sys/pidfd"
	"github.com/tare-oci/tare/internal/sys/signalpipe"
	"github.com/tare-oci/tare/internal/sys/unixsock"
	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/console"
	"github.com/tare-oci/tare/runtime/launch"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/spec"
	"github.com/tare-oci/tare/runtime/state"
)

// Exec runs a further process in a running or created container and, unless it is detached, returns its exit status.
func (r *Runtime) Exec(ctx context.Context, o ExecOptions) (int, error) {
	c, s, err := r.load(o.ID)
	if err != nil {
		return 255, err
	}
	switch {
	case s == state.Stopped || s == state.Creating:
		return 255, errors.New("cannot exec in a stopped container")
	case s == state.Paused && !o.IgnorePaused:
		return 255, errPaused
	}
	r.ended("open the container")
	x, err := r.joinContainer(c, &o)
	if err != nil {
		return 255, err
	}
	defer x.in.close()
	defer x.close()
	r.ended("read its configuration and compile the plan")
	child, err := x.start(&o)
	if err != nil {
		return 255, explainShortage(err, x.in.group)
	}
	if o.Detach {
		child.Close()
		return 0, nil
	}
	defer child.Close()
	status := accompany(child, x.relay, x.std)
	r.explainStatus(status, x.in.spec, x.in.group)
	r.ended("wait for the process")
	finishOutput(x.relay, x.std)
	return status, nil
}

// addition is a process on its way into a container.
type addition struct {
	in      *inside
	c       *state.Container
	process *specs.Process
	plan    *plan.Plan
	relay   *signalpipe.Pipe // of a runtime in the foreground
	std     *console.Streams // of the process
}

// inside opens a container for processes that join it. The caller calls close.
func (r *Runtime) inside(c *state.Container, s *specs.Spec) (*inside, error) {
	host, err := hostFacts(c.Bundle, c.ID, c.Rootless, c.Facts)
	if err != nil {
		return nil, err
	}
	in := &inside{r: r, spec: s, host: host, namespaces: namespaceFlags(s, c.Facts), noNewKeyring: c.NoNewKeyring}
	if err := pidfd.Check(); err != nil { // before a process is made that nothing could end
		return nil, err
	}
	fd, err := open(c.Init)
	if err != nil {
		return nil, err
	}
	in.process = os.NewFile(uintptr(fd.Fd()), "pidfd")
	if in.namespaces&plan.NewMount == 0 {
		if in.root, err = rootOf(c.Init); err != nil {
			in.close()
			return nil, err
		}
	}
	if c.Rootless && c.Status() == state.Created {
		if in.held, err = heldNamespaces(c); err != nil {
			in.close()
			return nil, err
		}
	}
	return in, nil
}

// rootOf opens the root directory of a process, for those that join it in the host's mount namespace.
func rootOf(p state.Process) (*os.File, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(p.Pid) + "/root")
	if err != nil {
		return nil, fmt.Errorf("open the container's root: %w", err)
	}
	if !p.Alive() { // another process may have had the number
		f.Close()
		return nil, ErrNotRunning
	}
	return f, nil
}

// heldNamespaces asks the first process of a created container for its namespaces: a user who is not root cannot join them otherwise,
// until the program runs.
func heldNamespaces(c *state.Container) ([]launch.Namespace, error) {
	conn, err := unixsock.Dial(c.Path(state.StartSocket))
	if err != nil {
		if c.Status() != state.Created {
			return nil, nil // started meanwhile
		}
		return nil, fmt.Errorf("reach the container's first process: %w", err)
	}
	defer conn.Close()
	return launch.Namespaces(conn)
}

// enter opens the container's cgroup for the process; sub as in --cgroup.
func (in *inside) enter(c *state.Container, sub map[string]string) error {
	g, err := recordedGroup(c)
	if err != nil || g == nil {
		return err
	}
	return in.enterGroup(g, c.Init.Pid, sub)
}

// enterGroup opens a group whose first process is init, 0 if none runs its program yet.
func (in *inside) enterGroup(g *cgroup.Group, init int, sub map[string]string) error {
	if g.Unit != nil && !g.MayJoin() {
		return in.placeInUnit(g, init, sub)
	}
	in.group = g
	join, err := g.JoinExec(init, sub)
	if err != nil {
		return err
	}
	in.join = join
	for _, j := range join {
		if !j.IntoCgroup {
			in.host.Cgroups = append(in.host.Cgroups, strings.TrimPrefix(j.Why, "join cgroup "))
		}
	}
	return nil
}

func (in *inside) close() {
	if in.root != nil {
		in.root.Close()
	}
	launch.CloseNamespaces(in.held)
	in.held = nil
	if in.process != nil {
		in.process.Close()
	}
	in.closeJoin()
}

func (in *inside) closeJoin() {
	for _, j := range in.join {
		j.File.Close()
	}
}

// joinContainer prepares an exec without starting anything.
func (r *Runtime) joinContainer(c *state.Container, o *ExecOptions) (*addition, error) {
	config, err := c.Config()
	if err != nil {
		return nil, err
	}
	s, _, err := spec.Parse(config)
	if err != nil {
		return nil, fmt.Errorf("%s in the state of %s: %w", spec.ConfigName, c.ID, err)
	}
	p, err := execProcess(s, o)
	if err != nil {
		return nil, err
	}
	switch {
	case p.Terminal && o.Detach && o.ConsoleSocket == "":
		return nil, errors.New("cannot allocate tty if runc will detach without setting console socket")
	case !p.Terminal && o.ConsoleSocket != "":
		return nil, errors.New("cannot use console socket if runc will not detach or allocate tty")
	}
	if !o.Detach {
		ownSize(p)
	}
	sub, err := subgroups(o.Cgroups)
	if err != nil {
		return nil, err
	}
	in, err := r.inside(c, s)
	if err != nil {
		return nil, err
	}
	x := &addition{in: in, c: c, process: p}
	if err := in.enter(c, sub); err != nil {
		in.close()
		return nil, err
	}
	input := plan.ExecInput{Spec: s, Process: p, Namespaces: in.namespaces}
	if a := p.ExecCPUAffinity; a != nil {
		input.InitialCPUs, input.FinalCPUs = a.Initial, a.Final
	}
	if err := checkInherited(o.PreserveFDs); err != nil { // socket activation is for the container's first process only
		in.close()
		return nil, err
	}
	x.plan, err = plan.CompileExec(input, in.host, plan.Options{PassedFDs: o.PreserveFDs, NoNewKeyring: c.NoNewKeyring})
	if err != nil {
		in.close()
		return nil, err
	}
	for _, w := range x.plan.Warnings {
		r.Warn(w)
	}
	return x, nil
}

func (x *addition) close() {
	if x.std != nil {
		x.std.Close()
	}
}

// start clones the process and brings it to its program.
func (x *addition) start(o *ExecOptions) (_ *launch.Child, err error) {
	if x.std, err = x.in.r.streams(x.in.spec, x.process, !o.Detach, o.ConsoleSocket); err != nil {
		return nil, err
	}
	res := &launch.Resources{Process: x.in.process, Namespaces: x.in.held, Root: x.in.root, Fault: x.in.r.fault, Stdio: x.std.Child,
		Foreground: !o.Detach && o.ConsoleSocket == "", Ready: true}
	want := confirm(x.plan, x.in.spec, x.process, beforeLimits)
	want.cgroups = x.in.group
	addCgroups(res, x.in.join)
	res.Place = x.in.place
	var child *launch.Child
	clone := func() (err error) {
		child, err = launch.Start(x.plan, res)
		return err
	}
	if err := x.in.r.timed(step{"clone the process", clone}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			child.Abort()
		}
	}()
	forwardListener(child, x.in.spec, x.c, state.Running, x.c.Init.Pid)
	return child, x.in.r.take([]step{
		{"write its oom score", child.Begin},
		{"check its namespaces", func() error { return x.in.checkOwner(x.c, child.PID) }},
		{"join the class of service", func() error { return x.in.r.joinContainerRdt(x.c, child.PID) }},
		{"let the process go on", func() error { return want.finish(child) }},
		{"await the process", func() error {
			if !o.Detach {
				if x.relay, err = signalpipe.Catch(); err != nil {
					return err
				}
			}
			if err := child.Await(0); err != nil {
				return err
			}
			if err := killedForMemory(child.PID, x.in.spec, x.in.group); err != nil {
				return err
			}
			return want.checkFilter(child.PID)
		}},
		{"send the terminal", func() error { return sendTerminal(o.ConsoleSocket, child) }},
		{"send the pidfd", func() error { return sendPidfd(o.PidfdSocket, child) }},
		{"write the pid file", func() error { return writePidFile(o.PidFile, child.PID) }},
	})
}

// execProcess is the process to run: the file's, confined as the container where the file is silent, or the container's own with
// what the flags change.
func execProcess(s *specs.Spec, o *ExecOptions) (*specs.Process, error) {
	if o.ProcessFile != "" {
		data, err := os.ReadFile(o.ProcessFile)
		if err != nil {
			return nil, fmt.Errorf("read process: %w", err)
		}
		p, _, err := spec.ParseProcess(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(o.ProcessFile), err)
		}
		inheritConfinement(p, s.Process)
		return p, nil
	}
	if s.Process == nil {
		return nil, errors.New("the container's configuration has no process to take the rest from: use --process")
	}
	p := *s.Process
	p.Args = o.Args
	p.Terminal = o.Tty
	p.ConsoleSize = nil
	if o.Cwd != "" {
		p.Cwd = o.Cwd
	}
	if o.ProcessLabel != "" {
		p.SelinuxLabel = o.ProcessLabel
	}
	if o.AppArmor != "" {
		p.ApparmorProfile = o.AppArmor
	}
	p.NoNewPrivileges = p.NoNewPrivileges || o.NoNewPrivs
	p.Env = append(append([]string{}, p.Env...), o.Env...)
	addCaps(&p, o.Caps)
	if err := setUser(&p, o); err != nil {
		return nil, err
	}
	if _, err := spec.ValidateProcess(&p); err != nil {
		return nil, err
	}
	return &p, nil
}

// inheritConfinement gives a process of --process what it does not say from the container's own process, nil if there is none:
// an exec is never less confined because a property was left out. That the process may gain no privileges holds for the whole
// container.
func inheritConfinement(p, own *specs.Process) {
	if own == nil {
		return // without capabilities the plan grants none
	}
	if p.Capabilities == nil {
		p.Capabilities = own.Capabilities
	}
	if p.SelinuxLabel == "" {
		p.SelinuxLabel = own.SelinuxLabel
	}
	if p.ApparmorProfile == "" {
		p.ApparmorProfile = own.ApparmorProfile
	}
	p.NoNewPrivileges = p.NoNewPrivileges || own.NoNewPrivileges
	for _, r := range own.Rlimits {
		if !slices.ContainsFunc(p.Rlimits, func(given specs.POSIXRlimit) bool { return given.Type == r.Type }) {
			p.Rlimits = append(p.Rlimits, r)
		}
	}
	if p.OOMScoreAdj == nil {
		p.OOMScoreAdj = own.OOMScoreAdj
	}
	if p.User.Umask == nil {
		p.User.Umask = own.User.Umask
	}
	if p.Scheduler == nil {
		p.Scheduler = own.Scheduler
	}
	if p.IOPriority == nil {
		p.IOPriority = own.IOPriority
	}
	if p.ExecCPUAffinity == nil {
		p.ExecCPUAffinity = own.ExecCPUAffinity
	}
}

// addCaps adds to the sets that make a capability usable by the process: inheritable and ambient only where the container's
// process has inheritable ones at all.
func addCaps(p *specs.Process, names []string) {
	if len(names) == 0 {
		return
	}
	var sets specs.LinuxCapabilities // a container without process.capabilities has none
	if p.Capabilities != nil {
		sets = *p.Capabilities
	}
	add := func(set []string) []string { return append(append([]string{}, set...), names...) }
	sets.Bounding, sets.Effective, sets.Permitted = add(sets.Bounding), add(sets.Effective), add(sets.Permitted)
	if len(sets.Inheritable) > 0 {
		sets.Inheritable, sets.Ambient = add(sets.Inheritable), add(sets.Ambient)
	}
	p.Capabilities = &sets
}

// setUser reads --user, "uid[:gid]" in numbers only: a word that is no number never becomes user 0 (CVE-2026-30892).
func setUser(p *specs.Process, o *ExecOptions) error {
	if o.User != "" {
		uid, gid, both := strings.Cut(o.User, ":")
		n, err := parseID(uid)
		if err != nil {
			return fmt.Errorf("bad uid: %w", err)
		}
		p.User.UID = n
		if both {
			if p.User.GID, err = parseID(gid); err != nil {
				return fmt.Errorf("bad gid: %w", err)
			}
		}
	}
	p.User.AdditionalGids = append(append([]uint32{}, p.User.AdditionalGids...), o.AdditionalGids...)
	return nil
}

func parseID(s string) (uint32, error) {
	_, err := strconv.Atoi(s)
	if errors.Is(err, strconv.ErrSyntax) {
		return 0, err
	}
	n, err := strconv.ParseUint(s, 10, 32) // an int has no room for all ids on 32-bit machines, and may have a sign
	if err != nil || n == 1<<32-1 {
		return 0, fmt.Errorf("%q is not an id from 0 to 4294967294", s)
	}
	return uint32(n), nil
}

// subgroups reads --cgroup "[controller[,controller]:]path".
func subgroups(list []string) (map[string]string, error) {
	if len(list) == 0 {
		return nil, nil
	}
	sub := make(map[string]string)
	for _, s := range list {
		names, path, ok := strings.Cut(s, ":")
		if !ok {
			names, path = "", s
		}
		for _, name := range strings.Split(names, ",") {
			if _, twice := sub[name]; twice {
				return nil, fmt.Errorf("--cgroup %q: controller %q is given twice", s, name)
			}
			sub[name] = path
		}
	}
	return sub, nil
}
