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
	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/console"
	"github.com/tare-oci/tare/runtime/criu"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/spec"
	"github.com/tare-oci/tare/runtime/state"
)

// CriuOptions are the flags that checkpoint and restore share.
type CriuOptions struct {
	ID             string
	ImagePath      string // directory of the images; empty: checkpoint in the working directory
	WorkPath       string // directory of criu's log and statistics; empty: ImagePath
	TCPEstablished bool
	ExtUnixSk      bool
	ShellJob       bool
	FileLocks      bool
	AutoDedup      bool
	LazyPages      bool
	CgroupsMode    string   // --manage-cgroups-mode
	EmptyNS        []string // types of namespaces
}

// CheckpointOptions are the flags of "checkpoint".
type CheckpointOptions struct {
	CriuOptions
	ParentPath      string // of the images of an earlier pre-dump, relative to ImagePath
	LeaveRunning    bool
	TCPSkipInFlight bool
	LinkRemap       bool
	PreDump         bool
	StatusFD        int // -1: none
	PageServer      *criu.PageServer
}

// Names of what criu writes to its working directory.
const (
	dumpLog    = "dump.log"
	restoreLog = "restore.log"
)

// Checkpoint writes the images of a running or paused container. Afterwards the container is gone, as if it had been stopped and
// deleted, except with LeaveRunning and PreDump.
func (r *Runtime) Checkpoint(ctx context.Context, o CheckpointOptions) error {
	c, err := state.Open(ctx, r.Root, o.ID)
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := r.status(c)
	if err != nil {
		return err
	}
	if s != state.Running && s != state.Paused || c.Status() != state.Running {
		return fmt.Errorf("container cannot be checkpointed in %s state", s)
	}
	d := &dump{r: r, o: &o, c: c}
	if err := d.prepare(); err != nil {
		return err
	}
	defer d.close()
	if err := d.do(); err != nil {
		return err
	}
	if o.LeaveRunning || o.PreDump {
		return nil
	}
	return r.destroy(ctx, c)
}

// dump is a checkpoint in progress.
type dump struct {
	r       *Runtime
	o       *CheckpointOptions
	c       *state.Container
	spec    *specs.Spec
	program string // criu
	work    string // criu's working directory, only the runtime's
	images  *os.File
	log     string // directory in which the caller looks for the log
}

// prepare does all that can fail before anything is written.
func (d *dump) prepare() (err error) {
	if err := checkCriu(d.r); err != nil {
		return err
	}
	if d.program, err = criu.Find(); err != nil {
		return err
	}
	config, err := d.c.Config()
	if err != nil {
		return err
	}
	if d.spec, _, err = spec.Parse(config); err != nil {
		return fmt.Errorf("%s in the state: %w", spec.ConfigName, err)
	}
	if err := refuseCriu(d.spec); err != nil {
		return err
	}
	if _, err := cgroupsMode(d.o.CgroupsMode); err != nil {
		return err
	}
	if _, err := emptyNS(d.o.EmptyNS); err != nil {
		return err
	}
	if d.o.ImagePath, err = imagePath(d.o.ImagePath); err != nil {
		return err
	}
	if err := d.checkParent(); err != nil {
		return err
	}
	if err := os.MkdirAll(d.o.ImagePath, 0o700); err != nil {
		return fmt.Errorf("make image directory: %w", err)
	}
	d.log = d.o.ImagePath
	if d.o.WorkPath != "" {
		if err := os.MkdirAll(d.o.WorkPath, 0o700); err != nil {
			return fmt.Errorf("make work directory: %w", err)
		}
		d.log = d.o.WorkPath
	}
	if d.images, err = os.Open(d.o.ImagePath); err != nil {
		return fmt.Errorf("open image directory: %w", err)
	}
	if d.work, err = workDir(d.c); err != nil {
		d.images.Close()
	}
	return err
}

func (d *dump) close() {
	d.images.Close()
	os.RemoveAll(d.work)
}

// checkParent refuses a --parent-path that criu would not find.
func (d *dump) checkParent() error {
	if d.o.ParentPath == "" {
		return nil
	}
	if filepath.IsAbs(d.o.ParentPath) {
		return errors.New("--parent-path must be relative")
	}
	st, err := os.Stat(filepath.Join(d.o.ImagePath, d.o.ParentPath))
	if err == nil && !st.IsDir() {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return fmt.Errorf("invalid --parent-path: %w", err)
	}
	return nil
}

// do runs criu.
func (d *dump) do() error {
	work, err := os.Open(d.work)
	if err != nil {
		return err
	}
	defer work.Close()
	opts, err := d.options(work)
	if err != nil {
		return err
	}
	p, err := criu.Start(d.program, &criu.Setup{Readable: newUserNamespace(d.spec)})
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.Need(d.o.PreDump, d.o.LazyPages); err != nil {
		return err
	}
	kind := criu.Dump
	if d.o.PreDump {
		kind = criu.PreDump
	}
	_, err = p.Do(kind, opts, filepath.Join(d.work, dumpLog), d.told)
	if err == nil && kind == criu.Dump {
		p.Wait()
	}
	return publishLogs(d.work, d.log, err)
}

// told answers criu's notifications.
func (d *dump) told(n criu.Notice) error {
	if n.File != nil {
		n.File.Close()
	}
	if n.Stage != "status-ready" || d.o.StatusFD < 0 {
		return nil
	}
	f := os.NewFile(uintptr(d.o.StatusFD), "status-fd")
	d.o.StatusFD = -1
	defer f.Close()
	if _, err := f.Write([]byte{0}); err != nil {
		d.r.Warn("write to --status-fd: " + err.Error())
	}
	return nil
}

// options are criu's options for the dump. It writes what restore needs besides the images.
func (d *dump) options(work *os.File) (*criu.Options, error) {
	mode, _ := cgroupsMode(d.o.CgroupsMode)
	empty, _ := emptyNS(d.o.EmptyNS)
	o := &criu.Options{
		ImagesFD: int(d.images.Fd()), WorkFD: int(work.Fd()), PID: d.c.Init.Pid, LogFile: dumpLog, LogLevel: 4,
		ParentImages: d.o.ParentPath, TrackMemory: d.o.ParentPath != "" || d.o.PreDump,
		LeaveRunning: d.o.LeaveRunning, ExtUnixSockets: d.o.ExtUnixSk, TCPEstablished: d.o.TCPEstablished,
		TCPSkipInFlight: d.o.TCPSkipInFlight, ShellJob: d.o.ShellJob, FileLocks: d.o.FileLocks, LinkRemap: d.o.LinkRemap,
		AutoDedup: d.o.AutoDedup, LazyPages: d.o.LazyPages, Cgroups: mode, EmptyNS: empty, PageServer: d.o.PageServer,
		FreezeCgroup: freezerDir(d.c.Cgroup),
	}
	var err error
	if o.External, err = dumpedNamespaces(d.spec); err != nil || d.o.PreDump {
		return o, err
	}
	table, err := readMounts(d.c.Init.Pid)
	if err != nil {
		return nil, err
	}
	if err := table.checkKeys(); err != nil {
		return nil, err
	}
	for i := range table.mounts {
		if m := &table.mounts[i]; m.key != "" {
			o.Mounts = append(o.Mounts, criu.Pair{Key: m.Point, Value: m.key})
		}
	}
	for _, s := range d.c.Streams {
		if strings.HasPrefix(s, "file[") {
			o.External = append(o.External, s)
		}
	}
	return o, d.writeStreams(d.c.Streams)
}

// writeStreams keeps the names of the standard streams beside the images. The file is made anew: a link is not followed.
func (d *dump) writeStreams(streams []string) error {
	data, err := json.Marshal(streams)
	if err != nil {
		return err
	}
	path := filepath.Join(d.o.ImagePath, criu.Descriptors)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("write descriptors: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write descriptors: %w", err)
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// streamNames are the names of the standard streams that a container's process is given, by which restore finds what they were
// connected with. They are told when the container is made: its program may connect them with something else.
func streamNames(std *console.Streams) []string {
	list := make([]string, 3)
	for n := range list {
		fd := n
		if std != nil && std.Child[n] != nil {
			fd = int(std.Child[n].Fd())
		}
		list[n] = descriptor.Name(os.Getpid(), fd)
	}
	return list
}

// freezerDir is the directory of the container's freezer; empty: none.
func freezerDir(data json.RawMessage) string {
	if len(data) == 0 {
		return ""
	}
	g, err := cgroup.DecodeGroup(data)
	if err != nil {
		return ""
	}
	return g.FreezerDir()
}

// Names of namespaces in criu's options. criu counts them by inode when it dumps, and takes a descriptor for the same name when it
// restores.
const (
	netKey = "extRootNetNS"
	pidKey = "extRootPidNS"
)

// dumpedNamespaces are the namespaces that the container joined and that are not dumped.
func dumpedNamespaces(s *specs.Spec) (list []string, err error) {
	if s.Linux == nil {
		return nil, nil
	}
	for _, ns := range s.Linux.Namespaces {
		if ns.Path == "" {
			continue
		}
		kind, key := "", ""
		switch ns.Type {
		case specs.NetworkNamespace:
			kind, key = "net", netKey
		case specs.PIDNamespace:
			kind, key = "pid", pidKey
		default:
			continue
		}
		st, err := os.Stat(ns.Path)
		if err != nil {
			return nil, fmt.Errorf("find %s namespace: %w", ns.Type, err)
		}
		list = append(list, fmt.Sprintf("%s[%d]:%s", kind, st.Sys().(*syscall.Stat_t).Ino, key))
	}
	return list, nil
}

// checkCriu refuses what criu cannot do for anybody but root.
func checkCriu(r *Runtime) error {
	if r.Rootless.On() {
		return errors.New("criu needs root: rootless containers cannot be checkpointed or restored")
	}
	return nil
}

// refuseCriu refuses containers that cannot be dumped or restored whatever the options.
func refuseCriu(s *specs.Spec) error {
	if s.Process == nil {
		return errors.New("the configuration has no process")
	}
	own := false
	if s.Linux != nil {
		for _, ns := range s.Linux.Namespaces {
			own = own || ns.Type == specs.MountNamespace && ns.Path == ""
			if ns.Path != "" && (ns.Type == specs.MountNamespace || ns.Type == specs.CgroupNamespace) {
				return fmt.Errorf("criu cannot put processes into the existing %s namespace %s", ns.Type, ns.Path)
			}
		}
		if len(s.Linux.NetDevices) > 0 {
			return errors.New("linux.netDevices: criu restores no devices that were moved in from the host")
		}
		if s.Linux.Seccomp != nil && s.Linux.Seccomp.ListenerPath != "" {
			return errors.New("linux.seccomp.listenerPath: the descriptor of a seccomp listener cannot be restored")
		}
	}
	if !own {
		return errors.New("criu needs a mount namespace of the container's own")
	}
	return nil
}

// newUserNamespace tells whether the container has a user namespace of its own: criu reads the images as its root then.
func newUserNamespace(s *specs.Spec) bool {
	return s.Linux != nil && slices.ContainsFunc(s.Linux.Namespaces, func(ns specs.LinuxNamespace) bool {
		return ns.Type == specs.UserNamespace
	})
}

// cgroupsMode reads --manage-cgroups-mode.
func cgroupsMode(mode string) (criu.CgroupMode, error) {
	switch mode {
	case "", "soft":
		return criu.CgroupsSoft, nil
	case "full":
		return criu.CgroupsFull, nil
	case "strict":
		return criu.CgroupsStrict, nil
	case "ignore":
		return criu.CgroupsIgnore, nil
	}
	return 0, fmt.Errorf("invalid --manage-cgroups-mode %q: want soft, full, strict or ignore", mode)
}

// emptyNS reads --empty-ns. The network namespace is always made without its devices: they are the caller's.
func emptyNS(types []string) (uint64, error) {
	for _, t := range types {
		if t != string(specs.NetworkNamespace) {
			return 0, fmt.Errorf("namespace %q is not supported by --empty-ns: only network is", t)
		}
	}
	return plan.NewNet, nil
}

// imagePath is the absolute directory of the images.
func imagePath(path string) (string, error) {
	if path == "" {
		path = "checkpoint"
	}
	return filepath.Abs(path)
}

// workDir makes criu's working directory within the container's state.
func workDir(c *state.Container) (string, error) {
	dir := c.Path("criu")
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return dir, os.Mkdir(dir, 0o700)
}

// publishLogs copies what criu wrote to dir to where the caller looks for it, and returns err, which names it there.
func publishLogs(dir, to string, err error) error {
	for _, name := range []string{dumpLog, restoreLog, "stats-dump", "stats-restore"} {
		if e := criu.Publish(dir, to, name); e != nil && err == nil {
			err = e
		}
	}
	var e *criu.Error
	if errors.As(err, &e) && e.Log != "" {
		e.Log = filepath.Join(to, filepath.Base(e.Log))
	}
	return err
}
