package lifecycle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/sys/descriptor"
	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/console"
	"github.com/tare-oci/tare/runtime/hooks"
	"github.com/tare-oci/tare/runtime/launch"
	"github.com/tare-oci/tare/runtime/plan"
	"github.com/tare-oci/tare/runtime/spec"
	"github.com/tare-oci/tare/runtime/state"
)

// prepared is a container before anything was touched for it: what is asked, what the host has, and the plan.
type prepared struct {
	bundle  string // absolute
	config  []byte
	options plan.Options
	spec    *specs.Spec
	host    *plan.Host
	group   *cgroup.Group // nil: no hierarchy is mounted
	scope   *scope        // nil: the group is not systemd's
	plan    *plan.Plan
	decided state.Facts // for later processes of the container
	notify  bool        // the container can notify the service manager
}

// prepare reads the bundle and compiles its plan. It changes nothing.
func (r *Runtime) prepare(o *CreateOptions, waitStart, attach bool) (*prepared, error) {
	bundle, config, err := readBundle(o.Bundle)
	if err != nil {
		return nil, err
	}
	p := &prepared{bundle: bundle, config: config}
	var warnings []string
	if p.spec, warnings, err = spec.Parse(p.config); err != nil {
		return nil, fmt.Errorf("%s: %w", spec.ConfigName, err)
	}
	if err := p.facts(r, o); err != nil {
		return nil, err
	}
	if p.spec.Process != nil {
		if attach {
			ownSize(p.spec.Process)
		}
		n, env := activation()
		p.spec.Process.Env = append(p.spec.Process.Env, env...)
		o.PreserveFDs += n
		if err := checkInherited(o.PreserveFDs); err != nil {
			return nil, err
		}
	}
	p.addNotify(r, o.ID)
	p.options = plan.Options{NoPivot: o.NoPivot, NoNewKeyring: o.NoNewKeyring, PassedFDs: o.PreserveFDs, WaitStart: waitStart,
		Hooks: p.hasCreateHooks()}
	if err := p.compile(); err != nil {
		return nil, err
	}
	for _, w := range append(warnings, p.plan.Warnings...) {
		r.Warn(w)
	}
	return p, nil
}

// readBundle returns the absolute path of a bundle without symbolic links, as runc tells it to hooks and in the state,
// and the text of its configuration.
func readBundle(dir string) (bundle string, config []byte, err error) {
	if bundle, err = filepath.Abs(dir); err == nil {
		bundle, err = filepath.EvalSymlinks(bundle)
	}
	if err != nil {
		return "", nil, fmt.Errorf("find bundle: %w", err)
	}
	config, err = spec.Read(bundle)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, fmt.Errorf("JSON specification file %s not found: %w", spec.ConfigName, err)
	}
	if err != nil {
		return "", nil, fmt.Errorf("read bundle: %w", err)
	}
	return bundle, config, nil
}

// ownSize gives a terminal without a size that of this process's own, from its first moment: the program may ask at once.
func ownSize(p *specs.Process) {
	if !p.Terminal || p.ConsoleSize != nil {
		return
	}
	if size, err := console.HostSize(); err == nil { // no terminal is an error later, where no socket takes the process's
		p.ConsoleSize = &specs.Box{Width: uint(size.Cols), Height: uint(size.Rows)}
	}
}

// compile makes the plan anew, for changed options or facts.
func (p *prepared) compile() (err error) {
	if p.plan, err = plan.Compile(p.spec, p.host, p.options); err != nil {
		return fmt.Errorf("%s: %w", spec.ConfigName, err)
	}
	return nil
}

// activation returns how many descriptors from 3 on were handed to this process by socket activation, and the variables that tell
// the container's process so, with the pid that it has in its own namespace. As sd_listen_fds(3) has it, LISTEN_PID must name this very
// process: else the variables were inherited from some other service, and the descriptors are whatever the caller has open (an
// engine's lock file). conmon sets LISTEN_PID to its runtime's pid when it was activated itself.
func activation() (int, []string) {
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil || n <= 0 || n >= 1<<16 || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return 0, nil
	}
	env := []string{"LISTEN_FDS=" + strconv.Itoa(n), "LISTEN_PID=1"}
	if names := os.Getenv("LISTEN_FDNAMES"); names != "" {
		env = append(env, "LISTEN_FDNAMES="+names)
	}
	return n, env
}

// checkInherited makes sure that n descriptors from 3 on were open when this process was started: else one of its own would take
// the place.
func checkInherited(n int) error {
	for fd := 3; fd < 3+n; fd++ {
		if !descriptor.Inherited(fd) {
			return fmt.Errorf("pass %d descriptors on: descriptor %d is not open", n, fd)
		}
	}
	return nil
}

// hasCreateHooks tells whether the child must stop for hooks once its mounts are made.
func (p *prepared) hasCreateHooks() bool {
	for _, k := range []hooks.Kind{hooks.Prestart, hooks.CreateRuntime, hooks.CreateContainer} {
		if len(hooks.Of(p.spec.Hooks, k)) > 0 {
			return true
		}
	}
	return false
}

// facts collects what the plan needs to know of the host.
func (p *prepared) facts(r *Runtime, o *CreateOptions) (err error) {
	if p.decided, err = decideFacts(p.spec.Linux); err != nil {
		return err
	}
	if p.host, err = hostFacts(p.bundle, o.ID, r.Rootless.On(), p.decided); err != nil {
		return err
	}
	if proc := p.spec.Process; proc != nil {
		p.host.SELinux = proc.SelinuxLabel != "" && exists("/sys/fs/selinux/enforce")
		p.host.AppArmor = proc.ApparmorProfile != "" && apparmor()
	}
	linux := p.spec.Linux
	if linux == nil {
		return nil
	}
	if linux.MountLabel != "" {
		p.host.SELinux = exists("/sys/fs/selinux/enforce")
	}
	if strings.HasSuffix(linux.RootfsPropagation, "shared") && p.spec.Root != nil {
		if p.host.RootMount, err = mountOf(p.rootfs()); err != nil {
			return err
		}
	}
	for _, ns := range linux.Namespaces {
		if ns.Type == specs.PIDNamespace && ns.Path != "" {
			p.host.ProcByDescriptor = launch.ProcByDescriptor()
		}
	}
	if o.NoPivot {
		if p.host.ProcMounts, err = procMounts(p.rootfs()); err != nil {
			return err
		}
	}
	return p.cgroups(r, o.ID)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func apparmor() bool {
	data, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && len(data) > 0 && data[0] == 'Y'
}

// rootfs is the absolute path of the root file system.
func (p *prepared) rootfs() string {
	if p.spec.Root == nil {
		return ""
	}
	if filepath.IsAbs(p.spec.Root.Path) {
		return filepath.Clean(p.spec.Root.Path)
	}
	return filepath.Join(p.bundle, p.spec.Root.Path)
}

// cgroups decides where the container's cgroup will be.
func (p *prepared) cgroups(r *Runtime, id string) error {
	detected, err := cgroup.Detect()
	if r.Systemd && err == nil {
		return p.planScope(detected, id)
	}
	if errors.Is(err, cgroup.ErrNoCgroups) && !asksCgroup(p.spec.Linux) {
		return nil
	}
	if err != nil {
		return err
	}
	if p.group, err = detected.Plan(p.spec.Linux.CgroupsPath, id); err != nil {
		return err
	}
	p.describeCgroup()
	return nil
}

// describeCgroup tells the plan of the group.
func (p *prepared) describeCgroup() {
	p.host.CgroupV2 = p.group.Mode == cgroup.V2
	p.showCgroup(p.group)
	for i := range p.group.Dirs {
		if d := &p.group.Dirs[i]; !d.Unified && !p.group.Managed(d) {
			p.host.Cgroups = append(p.host.Cgroups, d.Label())
		}
	}
}

// showCgroup says what the container sees of cgroups: group's directories.
func (p *prepared) showCgroup(group *cgroup.Group) {
	p.host.CgroupMounts, p.host.CgroupUnified = nil, group.UnifiedDir()
	for _, m := range group.MountSources() {
		p.host.CgroupMounts = append(p.host.CgroupMounts, plan.CgroupMount{Name: m.Name, Dir: m.HostDir, Links: m.Links})
	}
}

// namespaceFlags are the namespaces in which the container differs from the process that created it.
func namespaceFlags(s *specs.Spec, decided state.Facts) (flags uint64) {
	if s.Linux == nil {
		return 0
	}
	for _, ns := range s.Linux.Namespaces {
		flags |= plan.NamespaceFlag(ns.Type)
	}
	return flags &^ decided.SameNamespaces
}

// Plan returns the plan of the bundle's container as create would make it for an id like the bundle's name. It changes nothing.
func (r *Runtime) Plan(bundle string) (*plan.Plan, error) {
	bundle, err := filepath.Abs(bundle)
	if err != nil {
		return nil, fmt.Errorf("find bundle: %w", err)
	}
	p, err := r.prepare(&CreateOptions{ID: filepath.Base(bundle), Bundle: bundle}, true, false)
	if err != nil {
		return nil, err
	}
	p.closeScope()
	return p.plan, nil
}
