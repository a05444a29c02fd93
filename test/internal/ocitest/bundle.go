package ocitest

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// applets are the busybox commands that every root file system has in /bin.
const applets = "sh true false cat echo ls id env pwd grep hostname mount umount stat readlink touch mkdir mknod rm ln sleep df head " +
	"tail wc awk sed cut sort tr test tty stty uname kill ps chmod chown cp mv dd find umask ip ulimit date free od printf hexdump " +
	"nc nproc su seq basename mountpoint realpath ionice nice renice chrt taskset ifconfig usleep xargs uniq tee timeout md5sum mkfifo"

// Bundle is a bundle directory of its own with a root file system of busybox, and the configuration that Write puts in it.
type Bundle struct {
	ID     string         // a container id that no other bundle of the suite has
	Dir    string         // absolute; config.json and rootfs are in it
	Rootfs string         // Dir/rootfs; the bundle's own, free to change (busybox and probe in it are hard links: do not write to them)
	Spec   *specs.Spec    // edited by tests, written by Write
	Edits  []string       // applied after Spec was turned to JSON; see Edit
	Raw    []byte         // if not nil the whole config.json
	conf   map[string]any // what was written last
}

// DefaultCaps is the capability set of the base configuration.
var DefaultCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// BaseSpec returns the configuration that bundles start from: what `runc spec` writes, without a terminal, with a writable
// root and the capabilities of DefaultCaps.
func BaseSpec() *specs.Spec {
	caps := func() []string { return append([]string(nil), DefaultCaps...) }
	return &specs.Spec{
		Version: "1.0.2",
		Process: &specs.Process{
			Args:            []string{"true"},
			Env:             []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"},
			Cwd:             "/",
			Capabilities:    &specs.LinuxCapabilities{Bounding: caps(), Effective: caps(), Permitted: caps()},
			Rlimits:         []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 1024, Soft: 1024}},
			NoNewPrivileges: true,
		},
		Root:     &specs.Root{Path: "rootfs"},
		Hostname: "base",
		Mounts:   baseMounts(),
		Linux: &specs.Linux{
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
			Namespaces: []specs.LinuxNamespace{
				{Type: "pid"}, {Type: "network"}, {Type: "ipc"}, {Type: "uts"}, {Type: "mount"},
			},
			MaskedPaths: []string{
				"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
				"/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}

func baseMounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts",
			Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
	}
}

// prepareFiles copies busybox and the test binary (as probe) into workDir, where bundles hard-link them from.
func prepareFiles() error {
	box, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if bin, err := elf.Open(self); err != nil {
		return err
	} else if libs, _ := bin.ImportedLibraries(); len(libs) > 0 {
		return fmt.Errorf("the test binary needs %v, which no container has: run go test with CGO_ENABLED=0", libs)
	}
	if err := copyFile(self, filepath.Join(workDir, "probe")); err != nil {
		return err
	}
	return copyFile(box, filepath.Join(workDir, "busybox"))
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// MakeRootfs makes dir a root file system with busybox, its applets and the probe in /bin.
func MakeRootfs(dir string) error {
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp", "etc", "root"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	for _, f := range []string{"busybox", "probe"} {
		if err := os.Link(filepath.Join(workDir, f), filepath.Join(dir, "bin", f)); err != nil {
			return err
		}
	}
	for _, a := range strings.Fields(applets) {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", a)); err != nil {
			return err
		}
	}
	return os.Chmod(filepath.Join(dir, "tmp"), 0o1777)
}

// Bundle makes a bundle with the base configuration changed by mutate. It is removed at the end of the case.
func (h *H) Bundle(mutate ...func(*specs.Spec)) *Bundle {
	h.T.Helper()
	dir := h.TempDir()
	b := &Bundle{ID: h.NewID(), Dir: dir, Rootfs: filepath.Join(dir, "rootfs"), Spec: BaseSpec()}
	if err := MakeRootfs(b.Rootfs); err != nil {
		h.Fatalf("make root file system: %v", err)
	}
	b.Spec.Linux.CgroupsPath = "/" + b.ID
	for _, m := range mutate {
		m(b.Spec)
	}
	return b
}

// Edit appends edits of the configuration's JSON, which reach what the Go types cannot say:
//
//	path=JSON    set (objects on the way are made)
//	path+=JSON   append the elements of an array, or merge an object
//	-path        remove
//
// A path is member names with dots between; process.args=… for example.
func (b *Bundle) Edit(edits ...string) *Bundle { b.Edits = append(b.Edits, edits...); return b }

// Args sets the program.
func (b *Bundle) Args(args ...string) *Bundle { b.Spec.Process.Args = args; return b }

// Sh sets the program to a shell script.
func (b *Bundle) Sh(script string) *Bundle { return b.Args("sh", "-c", script) }

// Write writes config.json.
func (b *Bundle) Write() error {
	data := b.Raw
	if data == nil {
		j, err := json.Marshal(b.Spec)
		if err != nil {
			return err
		}
		b.conf = nil
		if err := json.Unmarshal(j, &b.conf); err != nil {
			return err
		}
		for _, e := range b.Edits {
			if err := applyEdit(b.conf, e); err != nil {
				return err
			}
		}
		if data, err = json.MarshalIndent(b.conf, "", "\t"); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(b.Dir, "config.json"), data, 0o644)
}

// EditRaw applies edits to a configuration that is given as a whole.
func (b *Bundle) EditRaw(edits ...string) error {
	var conf map[string]any
	if err := json.Unmarshal(b.Raw, &conf); err != nil {
		return err
	}
	for _, e := range edits {
		if err := applyEdit(conf, e); err != nil {
			return err
		}
	}
	var err error
	b.Raw, err = json.Marshal(conf)
	return err
}

func applyEdit(conf map[string]any, edit string) error {
	path, val, isSet := strings.Cut(edit, "=")
	if !isSet {
		path = strings.TrimPrefix(edit, "-")
	}
	add := strings.HasSuffix(path, "+")
	names := strings.Split(strings.TrimSuffix(path, "+"), ".")
	m := conf
	for _, n := range names[:len(names)-1] {
		next, ok := m[n].(map[string]any)
		if !ok {
			next = map[string]any{}
			m[n] = next
		}
		m = next
	}
	last := names[len(names)-1]
	if !isSet {
		delete(m, last)
		return nil
	}
	var v any
	d := json.NewDecoder(strings.NewReader(val))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return fmt.Errorf("edit %s: %w", edit, err)
	}
	if add {
		switch v := v.(type) {
		case []any:
			old, _ := m[last].([]any)
			m[last] = append(old, v...)
			return nil
		case map[string]any:
			old, _ := m[last].(map[string]any)
			if old == nil {
				old = map[string]any{}
			}
			for k, x := range v {
				old[k] = x
			}
			m[last] = old
			return nil
		}
	}
	m[last] = v
	return nil
}
