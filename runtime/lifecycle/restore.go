package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/sys/descriptor"
	"github.com/tare-oci/tare/internal/sys/reaper"
	"github.com/tare-oci/tare/internal/sys/signalpipe"
	"github.com/tare-oci/tare/internal/sys/unixsock"
	"github.com/tare-oci/tare/runtime/criu"
	"github.com/tare-oci/tare/runtime/hooks"
	"github.com/tare-oci/tare/runtime/launch"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/spec"
	"github.com/tare-oci/tare/runtime/state"
)

// RestoreOptions are the flags of "restore".
type RestoreOptions struct {
	CriuOptions
	Bundle          string // directory; empty: the working directory
	ConsoleSocket   string // path of the unix socket that takes the terminal's master
	PidFile         string
	Detach          bool // return when the container runs
	NoSubreaper     bool
	NoPivot         bool
	LSMProfile      string // TYPE:NAME, in place of the label of config.json
	LSMMountContext string
}

// restoration is a restore in progress. What the container may do is decided by its configuration alone: a template of it, made by
// the plan of create, is what the restored processes are compared with before they run.
type restoration struct {
	creation
	ro       *RestoreOptions
	program  string // criu
	work     string // only the runtime's: criu's working directory, copies of the images, mounts
	template *template
	criu     *criu.Process
	pid      int // of the restored init; 0: there is none yet
	master   *os.File
	pass     []*os.File // the standard streams, then namespaces to join
	links    []criu.Link
}

// Restore makes a container from the images of a checkpoint and, unless it is detached, stays until its first process ends, deletes
// it and returns the exit status. On an error nothing is left of it.
func (r *Runtime) Restore(ctx context.Context, o RestoreOptions) (int, error) {
	if !o.NoSubreaper && !o.Detach {
		if err := reaper.Become(); err != nil {
			return 1, err
		}
	}
	x := &restoration{ro: &o, creation: creation{r: r, attach: !o.Detach, o: CreateOptions{
		ID: o.ID, Bundle: o.Bundle, ConsoleSocket: o.ConsoleSocket, PidFile: o.PidFile, NoPivot: o.NoPivot}}}
	defer x.close()
	if err := x.prepare(); err != nil {
		return 1, err
	}
	if err := x.make(ctx); err != nil {
		return 1, err
	}
	if o.Detach {
		return 0, nil
	}
	return x.stay(ctx)
}

// stay is the second half of a restore in the foreground.
func (x *restoration) stay(ctx context.Context) (int, error) {
	if err := x.c.Unlock(); err != nil {
		return 1, x.undo(ctx, err)
	}
	status := accompany(x.child, x.relay, x.std)
	err := x.c.Lock(context.WithoutCancel(ctx))
	if err == nil {
		err = x.r.destroy(context.WithoutCancel(ctx), x.c)
	}
	if err != nil && !errors.Is(err, state.ErrNotExist) { // somebody has deleted it by force
		return status, err
	}
	finishOutput(x.relay, x.std)
	return status, nil
}

// prepare does all that can fail before anything is touched.
func (x *restoration) prepare() (err error) {
	switch x.ro.CgroupsMode {
	case "", "soft", "ignore":
	case "full", "strict":
		return fmt.Errorf("--manage-cgroups-mode %s is not supported: the limits are those of config.json, not of the images", x.ro.CgroupsMode)
	default:
		return fmt.Errorf("invalid --manage-cgroups-mode %q: want soft or ignore", x.ro.CgroupsMode)
	}
	if x.ro.NoPivot {
		return errors.New("--no-pivot is not supported: criu always pivots")
	}
	if _, err := emptyNS(x.ro.EmptyNS); err != nil {
		return err
	}
	if err := x.look(true); err != nil {
		return err
	}
	if err := checkCriu(x.r); err != nil {
		return err
	}
	if x.program, err = criu.Find(); err != nil {
		return err
	}
	if err := refuseCriu(x.spec); err != nil {
		return err
	}
	if x.ro.ImagePath, err = imagePath(x.ro.ImagePath); err != nil {
		return err
	}
	if st, err := os.Stat(x.ro.ImagePath); err != nil {
		return fmt.Errorf("find images: %w", err)
	} else if !st.IsDir() {
		return fmt.Errorf("find images: %s is not a directory", x.ro.ImagePath)
	}
	if err := checkImages(x.ro.ImagePath); err != nil {
		return err
	}
	if x.group == nil {
		return errors.New("criu needs a cgroup for the container, and no hierarchy is mounted")
	}
	x.options.Hooks = false // they run beside criu, not beside the template
	return x.compile()
}

// checkImages refuses a directory without images, with the name of the file that runc misses first.
func checkImages(dir string) error {
	images, err := filepath.Glob(filepath.Join(dir, "*.img"))
	if err != nil || len(images) > 0 {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, criu.Descriptors)); err != nil {
		return fmt.Errorf("find images: open %s: %w", filepath.Join(dir, criu.Descriptors), syscall.ENOENT)
	}
	return nil
}

// make does the restore. undo is creation's: it kills, and removes what is there.
func (x *restoration) make(ctx context.Context) (err error) {
	if x.c, err = state.Reserve(x.r.Root, x.o.ID); err != nil {
		return err
	}
	defer func() {
		x.endHelpers()
		if err != nil {
			err = x.undo(ctx, err)
		}
	}()
	if err := x.r.take([]step{
		{"record the configuration", x.describe},
		{"make the notify socket's directory", x.makeNotify},
		{"make the cgroup", x.enterCgroup},
		{"make the class of service", x.enterRdt},
		{"make criu's directory", func() (err error) { x.work, err = workDir(x.c); return err }},
		{"prepare the standard streams", x.openStreams},
		{"make a container to compare with", x.makeTemplate},
		{"check the images", x.checkImages},
		{"start criu", x.startCriu},
		{"end the container to compare with", x.dropTemplate},
		{"restore", func() error { return x.restore(ctx) }},
	}); err != nil {
		return err
	}
	return os.RemoveAll(x.work)
}

// endHelpers ends what a restore needs only while it is made.
func (x *restoration) endHelpers() {
	if x.criu != nil {
		x.criu.Close()
	}
	if x.template != nil {
		x.template.child.Abort()
	}
	for _, f := range x.pass {
		f.Close()
	}
	if x.master != nil {
		x.master.Close()
	}
	x.criu, x.template, x.pass, x.master = nil, nil, nil, nil
}

// openStreams prepares the standard streams. criu can put nothing but a file, whose position it sets, in the place of a file: then
// the container has the caller's own, as when it is detached.
func (x *restoration) openStreams() error {
	list, err := readStreams(filepath.Join(x.ro.ImagePath, criu.Descriptors))
	if err != nil {
		return err
	}
	file := slices.ContainsFunc(list, func(i criu.Inherit) bool { return strings.HasPrefix(i.Key, "file") })
	x.std, err = x.r.streams(x.spec, x.spec.Process, x.attach && !file, x.o.ConsoleSocket)
	return err
}

// makeTemplate makes the container as create does, up to the point where it waits for start: never to be started.
func (x *restoration) makeTemplate() error {
	listen, err := unixsock.Listen(filepath.Join(x.work, "template.sock"))
	if err != nil {
		return err
	}
	defer listen.Close()
	x.listen = listen
	res := x.resources()
	x.listen = nil
	child, err := launch.Start(x.plan, res)
	if err != nil {
		return err
	}
	x.template = &template{child: child} // ended by endHelpers
	for _, step := range []func() error{child.Begin, child.Finish, func() error { return child.Await(plan.StageCreated) }} {
		if err := step(); err != nil {
			return err
		}
	}
	if err := x.template.read(x.plan, x.spec); err != nil {
		return err
	}
	if x.ro.LSMProfile != "" {
		return x.template.setLabel(x.ro.LSMProfile)
	}
	return nil
}

// dropTemplate ends the template's process, whose mounts criu has now. What was learned of it stays.
func (x *restoration) dropTemplate() error {
	x.template.child.Abort()
	return nil
}

// images is the directory that criu reads.
func (x *restoration) images() string { return filepath.Join(x.work, "images") }

// checkImages copies the images and refuses, before criu sees them, what would end as something else than config.json says.
func (x *restoration) checkImages() error {
	if err := os.Mkdir(x.images(), 0o755); err != nil { // only root gets to it by its path
		return err
	}
	links, err := criu.CopyImages(x.ro.ImagePath, x.images())
	if err != nil {
		return err
	}
	x.links = links
	mounts, err := criu.ReadMounts(x.images())
	if err != nil {
		return err
	}
	if err := x.template.mounts.compareImages(mounts); err != nil {
		return fmt.Errorf("compare the images with %s: %w", "config.json", err)
	}
	if err := criu.SetSharing(x.images(), x.template.mounts.sharing()); err != nil {
		return err
	}
	if x.template.seccomp != nil {
		return criu.CheckSeccomp(x.images(), x.template.seccomp)
	}
	return nil
}

// startCriu starts criu where the restored processes are to be: in the container's cgroup and cgroup namespace, with the template's
// mounts at hand.
func (x *restoration) startCriu() (err error) {
	if x.work, err = filepath.EvalSymlinks(x.work); err != nil {
		return err
	}
	if err := os.Chmod(x.work, 0o755); err != nil { // its parent lets nobody but root in; a container's root gets to it in criu's namespace
		return err
	}
	s := &criu.Setup{Process: x.template.child.PIDFD, Dir: x.work, NoNewPrivs: x.template.noNewPrivs,
		Fault:  x.r.criuFault,
		Mounts: []plan.CloneMount{{Path: "/", Dest: "/mounts/root"}}}
	for _, l := range x.links {
		s.Mounts = append(s.Mounts, plan.CloneMount{Path: l.Path, Dest: "/images/" + l.Name, Own: true})
	}
	if x.scope != nil { // which is there since the template is in it
		join, err := x.group.Join()
		if err != nil {
			return err
		}
		x.join = append(x.join, join...) // closed together
		s.Join(join)
	} else {
		s.Join(x.join)
	}
	for i := range x.template.mounts.mounts {
		if m := &x.template.mounts.mounts[i]; m.key != "" {
			s.Mounts = append(s.Mounts, plan.CloneMount{Path: m.Point, Dest: "/mounts/" + m.key})
		}
	}
	for n := range 3 {
		fd := n
		if f := x.std.Child[n]; f != nil {
			fd = int(f.Fd())
		}
		f, err := descriptor.Dup(fd)
		if err != nil {
			return err
		}
		x.pass = append(x.pass, f)
	}
	s.OwnStdio = x.ro.ShellJob
	for _, ns := range x.spec.Linux.Namespaces {
		switch {
		case ns.Type == specs.CgroupNamespace && ns.Path == "":
			s.Unshare = plan.NewCgroup
		case ns.Path != "" && (ns.Type == specs.NetworkNamespace || ns.Type == specs.PIDNamespace):
			f, err := os.Open(ns.Path)
			if err != nil {
				return fmt.Errorf("open %s namespace: %w", ns.Type, err)
			}
			x.pass = append(x.pass, f)
		}
	}
	s.Pass = x.pass
	if x.criu, err = criu.Start(x.program, s); err != nil {
		return err
	}
	if x.rdt != nil { // what criu makes inherits the class
		if err := x.resctrl.Join(x.rdt, x.criu.PID); err != nil {
			return err
		}
	}
	return x.criu.Need(false, x.ro.LazyPages)
}

// restore lets criu work.
func (x *restoration) restore(ctx context.Context) error {
	o, err := x.criuOptions()
	if err != nil {
		return err
	}
	// criu's own view: the files that are not copied are mounted there.
	images, err := os.Open(fmt.Sprintf("/proc/%d/root%s/images", x.criu.PID, plan.PrivateDir))
	if err != nil {
		return err
	}
	defer images.Close()
	work, err := os.Open(x.work)
	if err != nil {
		return err
	}
	defer work.Close()
	o.ImagesFD, o.WorkFD = int(images.Fd()), int(work.Fd())
	_, err = x.criu.Do(criu.Restore, o, filepath.Join(x.work, restoreLog), func(n criu.Notice) error { return x.told(ctx, n) })
	if err == nil {
		x.criu.Wait()
		err = x.finish()
	}
	log := x.ro.ImagePath
	if x.ro.WorkPath != "" {
		log = x.ro.WorkPath
		if e := os.MkdirAll(log, 0o700); e != nil && err == nil {
			err = fmt.Errorf("make work directory: %w", e)
		}
	}
	return publishLogs(x.work, log, err)
}

// criuOptions are criu's options for the restore, without the descriptors of directories.
func (x *restoration) criuOptions() (*criu.Options, error) {
	dir := plan.PrivateDir + "/mounts"
	empty, _ := emptyNS(x.ro.EmptyNS)
	o := &criu.Options{LogFile: restoreLog, LogLevel: 4, Root: filepath.Join(dir, "root"), Sibling: true, EvasiveDevices: true,
		ExtUnixSockets: x.ro.ExtUnixSk, TCPEstablished: x.ro.TCPEstablished, ShellJob: x.ro.ShellJob, FileLocks: x.ro.FileLocks,
		AutoDedup: x.ro.AutoDedup, LazyPages: x.ro.LazyPages, Cgroups: criu.CgroupsIgnore, EmptyNS: empty,
		LSMProfile: x.template.lsmProfile(), LSMContext: x.ro.LSMMountContext}
	for i := range x.template.mounts.mounts {
		if m := &x.template.mounts.mounts[i]; m.key != "" {
			o.Mounts = append(o.Mounts, criu.Pair{Key: m.key, Value: filepath.Join(dir, m.key)})
		}
	}
	streams, err := readStreams(filepath.Join(x.images(), criu.Descriptors))
	if err != nil {
		return nil, err
	}
	for _, i := range streams {
		o.Inherit = append(o.Inherit, criu.Inherit{Key: i.Key, FD: int(x.pass[i.FD].Fd())})
	}
	n := 3
	for _, ns := range x.spec.Linux.Namespaces {
		if ns.Path == "" {
			continue
		}
		switch ns.Type {
		case specs.NetworkNamespace:
			o.Inherit = append(o.Inherit, criu.Inherit{Key: netKey, FD: int(x.pass[n].Fd())})
			o.EmptyNS &^= plan.NewNet
			n++
		case specs.PIDNamespace:
			o.Inherit = append(o.Inherit, criu.Inherit{Key: pidKey, FD: int(x.pass[n].Fd())})
			n++
		default:
			o.JoinNS = append(o.JoinNS, criu.Pair{Key: string(ns.Type), Value: ns.Path})
		}
	}
	return o, nil
}

// readStreams reads which of the standard streams criu connects with what the images had there. The names come with the images, and
// choose among descriptors that the container gets anyway.
func readStreams(path string) (list []criu.Inherit, err error) {
	data, err := spec.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	if err := json.Unmarshal(data, &names); err != nil {
		return nil, fmt.Errorf("decode %s: %w", criu.Descriptors, err)
	}
	for fd, name := range names[:min(3, len(names))] {
		known := slices.ContainsFunc(list, func(i criu.Inherit) bool { return i.Key == name })
		if !known && (inBrackets(name, "pipe:") || inBrackets(name, "file")) {
			list = append(list, criu.Inherit{Key: name, FD: fd})
		}
	}
	return list, nil
}

// inBrackets tells whether name is the prefix with hexadecimal numbers in brackets.
func inBrackets(name, prefix string) bool {
	rest, ok := strings.CutPrefix(name, prefix+"[")
	rest, end := strings.CutSuffix(rest, "]")
	return ok && end && rest != "" && strings.Trim(rest, "0123456789abcdef:") == ""
}

// told answers criu's notifications.
func (x *restoration) told(ctx context.Context, n criu.Notice) error {
	switch n.Stage {
	case "orphan-pts-master":
		if x.master != nil {
			x.master.Close()
		}
		x.master = n.File
		return nil
	case "setup-namespaces":
		return x.restoreHooks(ctx, n.PID)
	case "post-restore":
		x.pid = n.PID
	case "pre-resume":
		// All is as it was, but nothing runs yet. What criu thinks of an error here does not matter: the processes are dead.
		if err := x.admit(); err != nil {
			x.killAll()
			return err
		}
	}
	if n.File != nil {
		n.File.Close()
	}
	return nil
}

// restoreHooks runs the hooks that runc runs at a restore.
func (x *restoration) restoreHooks(ctx context.Context, pid int) error {
	st := x.c.OCI(state.Creating, pid)
	for _, kind := range []hooks.Kind{hooks.Prestart, hooks.CreateRuntime} {
		if err := hooks.Run(ctx, kind, x.spec.Hooks, st, x.bundle); err != nil {
			return err
		}
	}
	return nil
}

// admit decides, while the restored processes are stopped, whether they may run, and records them.
func (x *restoration) admit() (err error) {
	if x.pid <= 0 {
		return errors.New("criu has not told the number of the restored process")
	}
	pids, err := x.restored()
	if err != nil {
		return err
	}
	if err := x.template.verify(x.pid, pids); err != nil {
		return err
	}
	if err := x.limits(); err != nil {
		return err
	}
	if x.c.Init, err = state.Find(x.pid); err != nil {
		return err
	}
	if x.c.Facts.UserNamespace, err = launch.UserNamespace(x.pid); err != nil {
		return err
	}
	if x.c.Facts.MountOwner, err = joinedMounts(x.spec); err != nil {
		return err
	}
	x.c.Streams = streamNames(x.std)
	x.c.Creating = false
	if err := x.c.Save(); err != nil {
		return err
	}
	if x.child, err = launch.Adopt(x.pid, x.master); err != nil {
		return err
	}
	x.master = nil
	if x.attach {
		x.relay, err = signalpipe.Catch()
	}
	return err
}

// finish hands the restored container over once it runs.
func (x *restoration) finish() error {
	if x.child == nil {
		return errors.New("criu has restored nothing")
	}
	if err := sendTerminal(x.o.ConsoleSocket, x.child); err != nil {
		return err
	}
	return writePidFile(x.o.PidFile, x.pid)
}

// restored are the processes in the container's cgroup that are not criu's own.
func (x *restoration) restored() ([]int, error) {
	pids, err := x.group.Procs()
	if err != nil {
		return nil, err
	}
	pids = slices.DeleteFunc(pids, func(pid int) bool { return pid == x.criu.PID || parentOf(pid) == x.criu.PID })
	if !slices.Contains(pids, x.pid) {
		return nil, fmt.Errorf("restored process %d is not in the container's cgroup", x.pid)
	}
	return pids, nil
}

// killAll kills every restored process while none has run.
func (x *restoration) killAll() {
	pids, _ := x.restored()
	for _, pid := range append(pids, x.pid) {
		if p, err := state.Find(pid); err == nil {
			signal(p, syscall.SIGKILL)
		}
	}
}
