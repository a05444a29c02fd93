package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/atomicfile"
	"github.com/tare-oci/tare/internal/sys/pidfd"
	"github.com/tare-oci/tare/internal/sys/signalpipe"
	"github.com/tare-oci/tare/internal/sys/unixsock"
	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/console"
	"github.com/tare-oci/tare/runtime/hooks"
	"github.com/tare-oci/tare/runtime/launch"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/rdt"
	"github.com/tare-oci/tare/runtime/state"
)

// creation is a container on its way into the world.
type creation struct {
	*prepared
	r       *Runtime
	o       CreateOptions
	attach  bool // this process stays with the container's terminal
	starts  bool // run, not create
	keep    bool // a container whose program cannot be executed is left to a later delete
	c       *state.Container
	join    []cgroup.JoinFile
	listen  *os.File
	child   *launch.Child
	limited bool             // the limits of the cgroup are set
	relay   *signalpipe.Pipe // of a runtime in the foreground
	std     *console.Streams // of the container's process

	devices *netDevices // nil: linux.netDevices has none
	resctrl *rdt.FS
	rdt     *rdt.Group // nil: linux.intelRdt is not set
	proxy   *notifyProxy
}

// Create makes a container up to the point where only its program is missing: steps 1 to 5 of the lifecycle in runtime.md. On
// an error nothing is left of it.
func (r *Runtime) Create(ctx context.Context, o CreateOptions) error {
	k := &creation{r: r, o: o}
	defer k.close()
	if err := k.look(true); err != nil {
		return err
	}
	return k.make(ctx, true)
}

// look does all that can fail before anything is touched.
func (k *creation) look(wait bool) (err error) {
	if err := state.CheckID(k.o.ID); err != nil {
		return err
	}
	if err := pidfd.Check(); err != nil { // before a program runs that nothing could end
		return err
	}
	err = k.r.timed(step{"read the bundle and compile the plan", func() (err error) {
		k.prepared, err = k.r.prepare(&k.o, wait, k.attach)
		return err
	}})
	if err != nil {
		return err
	}
	if err := k.checkTerminal(); err != nil {
		return err
	}
	if err := k.lookRdt(); err != nil {
		return err
	}
	return k.lookNetDevices()
}

// make does the work of create and the first half of run. wait lets the container wait for start.
func (k *creation) make(ctx context.Context, wait bool) (err error) {
	if k.c, err = state.Reserve(k.r.Root, k.o.ID); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = k.undo(ctx, err)
		}
	}()
	return k.r.take(k.steps(ctx, wait))
}

// errFault is the failure that a test asked for.
var errFault = errors.New("fault for a test")

// steps are what make does once the state directory exists, in this order. Each may fail; undo knows what was done.
func (k *creation) steps(ctx context.Context, wait bool) []step {
	return []step{
		{"record the configuration", k.describe},
		{"make the notify socket", k.makeNotify},
		{"make the cgroup", k.enterCgroup},
		{"make the class of service", k.enterRdt},
		{"clone the container's process", func() error { return k.clone(wait) }},
		{"write its id mappings and oom score", func() error { return k.child.Begin() }},
		{"find its start time", func() error { return k.record(wait) }},
		{"join the class of service", k.joinRdt},
		{"move network devices", k.moveNetDevices},
		{"set the cgroup's limits", k.limits},
		{"save the state", func() error { return k.c.Save() }},
		{"run the hooks of create", func() error { return k.createHooks(ctx) }},
		{"let the process go on", func() error { return k.finish(wait) }},
		{"await the process", func() (err error) {
			if k.attach && k.relay == nil {
				if k.relay, err = signalpipe.Catch(); err != nil {
					return err
				}
			}
			return k.await(wait)
		}},
		{"send the terminal", func() error { return sendTerminal(k.o.ConsoleSocket, k.child) }},
		{"send the pidfd", func() error { return sendPidfd(k.o.PidfdSocket, k.child) }},
		{"write the pid file", func() error { return writePidFile(k.o.PidFile, k.child.PID) }},
		{"publish the container", k.publish},
	}
}

// clone starts the container's process, which for create waits for start.
func (k *creation) clone(wait bool) (err error) {
	if wait {
		if k.listen, err = unixsock.Listen(k.c.Path(state.StartSocket)); err != nil {
			return err
		}
	}
	if k.spec.Process != nil {
		if k.std, err = k.r.streams(k.spec, k.spec.Process, k.attach, k.o.ConsoleSocket); err != nil {
			return err
		}
	}
	if len(k.plan.Outer) > 0 && k.scope == nil { // what an intermediate process does, a copy into a tmpfs, is not for Start to wait with
		if err := k.limits(); err != nil {
			return err
		}
	}
	k.child, err = launch.Start(k.plan, k.resources())
	if err == nil {
		forwardListener(k.child, k.spec, k.c, state.Creating, k.child.PID)
	}
	if k.listen != nil {
		// The child's copy is the only one from here on: a start that comes when the child is dead would wait for ever.
		k.listen.Close()
		k.listen = nil
	}
	if k.attach && k.hasCreateHooks() {
		var caught error
		if k.relay, caught = signalpipe.Catch(); err == nil { // hooks may take long
			err = caught
		}
	}
	return err
}

// finish lets the process go on to its wait for start, or, once it is what it must be, to its program.
func (k *creation) finish(wait bool) error {
	if wait {
		return k.child.Finish()
	}
	return k.confirmation(beforeLimits).finish(k.child)
}

// await waits until the process waits for start, and is what it must be, or until its program runs.
func (k *creation) await(wait bool) error {
	if !wait {
		if err := k.child.Await(0); err != nil {
			return err
		}
		if err := killedForMemory(k.child.PID, k.spec, k.group); err != nil {
			return err
		}
		return k.confirmation(beforeLimits).checkFilter(k.child.PID)
	}
	if err := k.child.Await(plan.StageCreated); err != nil || k.spec.Process == nil {
		return err
	}
	return k.confirmation(beforeStart).check(k.child.PID)
}

// confirmation is what the process must be at a point of its plan.
func (k *creation) confirmation(last func(plan.Op) bool) *confirmation {
	c := confirm(k.plan, k.spec, k.spec.Process, last)
	c.cgroups = k.group
	return c
}

// record puts the process into the state.
func (k *creation) record(wait bool) (err error) {
	if k.c.Init, err = state.Find(k.child.PID); err != nil {
		return err
	}
	k.c.Facts.UserNamespace, _ = launch.UserNamespace(k.child.PID) // 0 where a user may not look: then an exec does not compare
	if k.c.Facts.MountOwner, err = joinedMounts(k.spec); err != nil {
		return err
	}
	k.c.Streams = streamNames(k.std)
	if !k.hasCreateHooks() && !wait {
		k.c.Creating = false // there is nobody before the program runs who could tell the difference
	}
	return nil
}

// publish tells the state directory that the container exists.
func (k *creation) publish() error {
	if !k.c.Creating {
		return nil
	}
	k.c.Creating = false
	return k.c.Save()
}

// sendTerminal hands the terminal's master to the socket; without one it stays with the child.
func sendTerminal(socket string, child *launch.Child) error {
	if socket == "" {
		return nil
	}
	if child.Master == nil {
		return errors.New("the container's process opened no terminal")
	}
	err := console.SendConsole(socket, child.Master)
	child.Master.Close()
	child.Master = nil
	return err
}

// sendPidfd hands a descriptor of the process to the socket, if there is one.
func sendPidfd(socket string, child *launch.Child) error {
	if socket == "" {
		return nil
	}
	sock, err := unixsock.Dial(socket)
	if err != nil {
		return fmt.Errorf("send pidfd: %w", err)
	}
	defer sock.Close()
	if err := unixsock.SendFD(sock, []byte("pidfd"), int(child.PIDFD.Fd())); err != nil {
		return fmt.Errorf("send pidfd: %w", err)
	}
	return nil
}

// writePidFile writes the number without a newline, as callers read it; path may be empty.
func writePidFile(path string, pid int) error {
	if path == "" {
		return nil
	}
	if err := atomicfile.Write(path, []byte(strconv.Itoa(pid)), 0o644, atomicfile.NoSync); err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	return nil
}

// checkTerminal refuses terminals without an owner before anything is touched, in the words that runc's callers know.
func (k *creation) checkTerminal() error {
	terminal := k.spec.Process != nil && k.spec.Process.Terminal
	switch {
	case terminal && !k.attach && k.o.ConsoleSocket == "":
		return errors.New("cannot allocate tty if runc will detach without setting console socket")
	case !terminal && k.o.ConsoleSocket != "":
		return errors.New("cannot use console socket if runc will not detach or allocate tty")
	}
	return nil
}

// describe fills the state file's fields, so that whatever happens from here on can be cleaned up by delete.
func (k *creation) describe() error {
	c := k.c
	c.Bundle, c.Rootfs, c.Annotations, c.Hooks = k.bundle, k.rootfs(), k.spec.Annotations, k.spec.Hooks
	c.NoPivot, c.NoNewKeyring, c.NoProcess = k.o.NoPivot, k.o.NoNewKeyring, k.spec.Process == nil
	c.Rootless, c.Facts = k.host.Rootless, k.decided
	if st, err := os.Lstat(k.rootfs()); err != nil {
		return fmt.Errorf("root.path: invalid rootfs: %w", err)
	} else if st.Mode().Type() == os.ModeSymlink { // runc's words; what is opened is checked again
		return fmt.Errorf("root.path: invalid rootfs: not an absolute path, or a symlink: %s", k.rootfs())
	} else if !st.IsDir() {
		return fmt.Errorf("root.path: invalid rootfs: %s is not a directory", k.rootfs())
	}
	for _, ns := range k.spec.Linux.Namespaces {
		if ns.Type == "pid" && ns.Path == "" {
			c.OwnPidNS = true
		}
	}
	return c.SaveConfig(k.config)
}

// enterCgroup makes the container's cgroup with its device rules and opens it for the child.
func (k *creation) enterCgroup() error {
	if k.group == nil {
		return nil
	}
	if k.scope != nil {
		return k.enterScope()
	}
	if err := k.claimCgroup(); err != nil {
		return err
	}
	err := k.group.Create(k.spec.Linux.Resources)
	if err != nil {
		k.c.Cgroup = nil // it has removed what it made
	}
	if errors.Is(err, cgroup.ErrNotPermitted) && k.host.Rootless && !asksCgroup(k.spec.Linux) {
		k.r.Debug("no cgroup: " + err.Error())
		return k.withoutCgroup()
	}
	if err != nil {
		return err
	}
	k.c.Cgroup = k.group.AppendJSON(nil)
	if k.join, err = k.group.Join(); err != nil {
		return err
	}
	if err := k.delegate(); err != nil {
		return err
	}
	return k.group.ApplyDevices(k.spec.Linux.Resources) // not beside the child, which makes device nodes
}

// claimCgroup saves what Create is about to make, for a delete after this process was killed in the midst of it.
func (k *creation) claimCgroup() error {
	k.c.Cgroup = k.group.Claim().AppendJSON(nil)
	return k.c.Save()
}

// withoutCgroup compiles the plan again for a container that stays in the caller's cgroup.
func (k *creation) withoutCgroup() error {
	known := k.plan.Warnings
	k.showCgroup(k.group.Caller())
	k.group = nil
	k.host.Cgroups, k.host.CgroupShared = nil, true
	if err := k.compile(); err != nil {
		return err
	}
	for _, w := range k.plan.Warnings {
		if !slices.Contains(known, w) {
			k.r.Warn(w)
		}
	}
	return nil
}

// asksCgroup tells whether a container cannot go on without a cgroup of its own: a path is given, or limits are. The usual device
// rules do not count, which a user namespace enforces by itself.
func asksCgroup(linux *specs.Linux) bool {
	if linux.CgroupsPath != "" {
		return true
	}
	res := linux.Resources
	if res == nil {
		return false
	}
	rest := *res
	rest.Devices = nil
	data, err := json.Marshal(rest)
	return err != nil || string(data) != "{}"
}

func (k *creation) limits() error {
	if k.group == nil || k.limited {
		return nil
	}
	k.limited = true
	if k.scope != nil {
		return k.scope.limit(k.group, k.spec.Linux.Resources)
	}
	return k.group.ApplyLimits(k.spec.Linux.Resources)
}

func (k *creation) resources() *launch.Resources {
	res := &launch.Resources{Listen: k.listen, Fault: k.r.fault, Foreground: k.attach && k.o.ConsoleSocket == "",
		Ready: k.listen == nil}
	if k.std != nil {
		res.Stdio = k.std.Child
	}
	if k.scope != nil {
		res.Place = k.place
	}
	addCgroups(res, k.join)
	return res
}

func addCgroups(res *launch.Resources, join []cgroup.JoinFile) {
	for _, j := range join {
		if j.IntoCgroup {
			res.CgroupDir = j.File
		} else {
			res.Cgroups = append(res.Cgroups, j.File)
		}
	}
}

// createHooks waits for the mounts and runs prestart, createRuntime and createContainer in their order.
func (k *creation) createHooks(ctx context.Context) error {
	if !k.hasCreateHooks() {
		return nil
	}
	if err := k.child.Await(plan.StageMounts); err != nil {
		return err
	}
	st := k.c.OCI(state.Creating, k.child.PID)
	for _, kind := range []hooks.Kind{hooks.Prestart, hooks.CreateRuntime} {
		if err := hooks.Run(ctx, kind, k.spec.Hooks, st, k.bundle); err != nil {
			return err
		}
	}
	in := inside{r: k.r, spec: k.spec, host: k.host, namespaces: namespaceFlags(k.spec, k.decided), join: k.join, process: k.child.PIDFD, held: k.child.Namespaces,
		rootfs: k.rootfs()}
	if k.scope != nil {
		if err := in.joinUnit(k.group); err != nil {
			return err
		}
		defer in.closeJoin()
	}
	st.Pid = in.pid(k.child.PID)
	if err := in.run(ctx, hooks.CreateContainer, k.spec.Hooks, st); err != nil {
		return err
	}
	return k.child.Go()
}

// undo removes everything that make has made and returns the reason with what could not be removed.
func (k *creation) undo(ctx context.Context, reason error) error {
	reason = explainShortage(reason, k.group)
	if err := k.devices.moveBack(); err != nil {
		reason = fmt.Errorf("%w (and cleaning up: %v)", reason, err)
	}
	if k.child != nil {
		k.child.Abort()
	}
	if k.o.PidFile != "" && k.child != nil {
		k.removePidFile()
	}
	if k.keep && isProgramError(reason) {
		return k.leaveStopped(reason)
	}
	if err := k.undoRdt(); err != nil {
		reason = fmt.Errorf("%w (and cleaning up: %v)", reason, err)
	}
	if k.c.Init.Pid == 0 {
		k.c.Hooks = nil // nothing was created that a poststop hook could undo
	}
	if err := k.r.destroy(context.WithoutCancel(ctx), k.c); err != nil {
		return fmt.Errorf("%w (and cleaning up: %v)", reason, err)
	}
	return reason
}

// isProgramError tells whether a container was complete and only its program could not be executed.
func isProgramError(err error) bool {
	var e *launch.StepError
	if !errors.As(err, &e) {
		return false
	}
	switch e.Op.(type) {
	case plan.FindProgram, plan.Exec:
		return true
	}
	return false
}

// leaveStopped leaves a container whose process has ended as run leaves one that it keeps.
func (k *creation) leaveStopped(reason error) error {
	k.c.Creating = false
	if err := k.c.Save(); err != nil {
		return fmt.Errorf("%w (and keeping the container: %v)", reason, err)
	}
	return reason
}

// removePidFile removes the file only when it is the one that this creation wrote.
func (k *creation) removePidFile() {
	data, err := os.ReadFile(k.o.PidFile)
	if err == nil && string(data) == strconv.Itoa(k.child.PID) {
		os.Remove(filepath.Clean(k.o.PidFile))
	}
}

// close releases this process's descriptors; the container goes on.
func (k *creation) close() {
	for _, j := range k.join {
		j.File.Close()
	}
	if k.prepared != nil {
		k.closeScope()
	}
	if k.listen != nil {
		k.listen.Close()
	}
	k.devices.close()
	if k.std != nil {
		k.std.Close()
	}
	k.proxy.close()
	if k.child != nil {
		k.child.Close()
	}
	if k.c != nil {
		k.c.Close()
	}
}
