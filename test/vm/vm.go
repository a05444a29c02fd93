// Package vm runs a command as root in a virtual machine of its own, with a distribution's kernel, another layout of
// cgroups or another architecture: what the tests' own machine may not have. It needs QEMU and a kernel package, which
// it takes from apt; it is emulated (unless TARE_VM_ACCEL=kvm), boots in seconds and runs at a tenth of the speed.
//
// The machine's root is a tmpfs (so pivot_root(2) works) with busybox, the caller's files and nothing else, or a disk
// with systemd. It has no network.
package vm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// Cgroups is a layout of the machine's /sys/fs/cgroup.
type Cgroups string

// The layouts.
const (
	CgroupV2     Cgroups = "v2"
	CgroupHybrid Cgroups = "hybrid" // version 1 hierarchies, "systemd" and an empty cgroup2 at unified
)

// Machine says what to boot. The zero value is a machine with the default kernel, cgroup v2 and 512 MiB.
type Machine struct {
	Kernel   *Kernel           // nil: that of Kernels["release"]
	Cgroups  Cgroups           // empty: CgroupV2
	Memory   int               // MiB; 0: 512. The files are held in it twice while it boots.
	CPUs     int               // 0: 2
	Files    map[string]string // path in the machine to a file or directory of the host; programs must be static or bring their libraries
	Programs []string          // programs of the host by name, at their places and with their libraries
	Modules  []string          // kernel modules to load ("overlay", "veth"), with what they need
	Env      []string          // K=V for the command
	Disk     string            // image of a root file system with systemd (SystemdDisk); empty: a tmpfs with Files
	Scratch  bool              // /tmp and /var/tmp are an ext4 of 4 GiB, which can map ids, and not a tmpfs
	Dir      string            // working directory of the command; empty: "/"
}

// Result is what a command did.
type Result struct {
	Output  string // of the command, both streams
	Status  int    // exit status of the command
	Console string // the kernel's messages
}

// marker ends the output and carries the exit status.
const marker = "\ntare-vm-exit: "

// ErrUnavailable is wrapped when this host cannot run machines: no QEMU, no kernel package, an unknown architecture.
// Tests skip on it, with its text as the reason.
var ErrUnavailable = errors.New("no virtual machine here")

// Run boots the machine, runs the command and waits for its end. A command that fails is no error, its Status tells;
// a machine that does not come to the command's end is, and the Result then holds what there is.
func (m Machine) Run(ctx context.Context, argv ...string) (*Result, error) {
	if m.Kernel == nil {
		k, err := FindKernel(Kernels["release"])
		if err != nil {
			return nil, err
		}
		m.Kernel = k
	}
	programs, err := programFiles(m.Programs)
	if err != nil {
		return nil, err
	}
	for path, host := range m.Files {
		programs[path] = host
	}
	m.Files = programs
	dir, err := os.MkdirTemp("", "tare-vm-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := m.writeInitramfs(filepath.Join(dir, "initrd"), argv); err != nil {
		return nil, fmt.Errorf("make initramfs: %w", err)
	}
	name, board := board(m.Kernel.Arch)
	qemu, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %s is needed", ErrUnavailable, name)
	}
	disk, kernelArgs := m.diskArgs()
	if m.Scratch {
		file := filepath.Join(dir, "scratch")
		if out, err := exec.Command("mke2fs", "-q", "-t", "ext4", file, "4G").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w: mke2fs: %w: %s", ErrUnavailable, err, bytes.TrimSpace(out))
		}
		disk = append(disk, "-drive", "file="+file+",if=virtio,format=raw")
	}
	args := append(append(disk, board...),
		"-nodefaults", "-no-user-config", "-nographic", "-no-reboot",
		"-smp", strconv.Itoa(or(m.CPUs, 2)), "-m", strconv.Itoa(or(m.Memory, 512)),
		"-kernel", m.Kernel.Image, "-initrd", filepath.Join(dir, "initrd"),
		"-append", "console="+consoleOf(m.Kernel.Arch)+" quiet panic=-1 rdinit=/init mitigations=off"+kernelArgs,
		"-serial", "file:"+filepath.Join(dir, "console"),
		"-chardev", "file,id=out,path="+filepath.Join(dir, "out"))
	said, runErr := m.boot(ctx, dir, qemu, args)
	return collect(dir, said, runErr, ctx.Err())
}

// board returns QEMU's program for an architecture and its options for a machine with a console, and a second serial
// port for what the command writes.
func board(arch string) (program string, options []string) {
	if arch == "arm64" {
		return "qemu-system-aarch64", []string{"-machine", "virt", "-accel", "tcg,thread=multi", "-cpu", "cortex-a72", "-device", "pci-serial,chardev=out"}
	}
	// Without cmpxchg16b, whose emulation in QEMU 7.2 destroys flags: kernels since 6.5 allocate by it, and panic now and
	// then.
	return "qemu-system-x86_64", []string{"-machine", "q35", "-accel", accel(), "-cpu", "Nehalem,-cx16", "-device", "isa-serial,chardev=out"}
}

// consoleOf is the console's name in the machine, and outputOf that of the second port.
func consoleOf(arch string) string {
	if arch == "arm64" {
		return "ttyAMA0"
	}
	return "ttyS0"
}

func outputOf(arch string) string {
	if arch == "arm64" {
		return "ttyS0"
	}
	return "ttyS1"
}

// accel is QEMU's accelerator. /dev/kvm may be there and not work (a machine that is a virtual one itself), so it is
// used only when TARE_VM_ACCEL=kvm asks for it.
func accel() string {
	if a := os.Getenv("TARE_VM_ACCEL"); a != "" {
		return a
	}
	return "tcg,thread=multi"
}

// collect reads what the machine wrote.
func collect(dir string, said []byte, runErr, ctxErr error) (*Result, error) {
	out, _ := os.ReadFile(filepath.Join(dir, "out"))
	console, _ := os.ReadFile(filepath.Join(dir, "console"))
	r := &Result{Output: string(out), Status: -1, Console: string(console)}
	at := strings.LastIndex(r.Output, marker)
	if at < 0 {
		return r, fmt.Errorf("virtual machine ended before its command: %w\n%s%s", errors.Join(ctxErr, runErr, io.ErrUnexpectedEOF), said, tail(r.Console))
	}
	status, err := strconv.Atoi(strings.TrimSpace(r.Output[at+len(marker):]))
	if err != nil {
		return r, fmt.Errorf("read exit status: %w", err)
	}
	r.Output, r.Status = r.Output[:at], status
	return r, nil
}

func tail(s string) string { return s[max(0, len(s)-4000):] }

// init is the machine's first program. It moves the files to a tmpfs, mounts what a Linux system has, runs the
// command and switches the machine off.
const initScript = `#!/bin/busybox sh
if [ -z "$TARE_VM_SECOND" ]; then
	/bin/busybox mkdir -p /new
	/bin/busybox mount -t tmpfs -o mode=0755,size=90% root /new
	for f in /* /.[!.]*; do [ $f = /new ] || [ ! -e $f ] || /bin/busybox cp -a $f /new/; done
	/bin/busybox mkdir -p /new/proc /new/sys /new/dev /new/tmp /new/run /new/root /new/etc /new/var/tmp
	export TARE_VM_SECOND=1
	exec /new/bin/busybox switch_root /new /init
fi
unset TARE_VM_SECOND
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=linux
/bin/busybox --install -s /bin
mount --make-rshared /
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t securityfs securityfs /sys/kernel/security
mount -t devtmpfs dev /dev
echo ` + bootMarker + ` >/dev/console
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t mqueue mqueue /dev/mqueue
mount -t tmpfs -o mode=0755 run /run
while read -r m; do insmod $m || echo "insmod $m: $?" >/dev/console; done </etc/tare-vm-modules
if [ -e /etc/tare-vm-scratch ]; then
	n=0
	until mount -t ext4 /dev/vda /tmp; do n=$((n+1)); [ $n -lt 50 ] || exec poweroff -f; usleep 100000; done
	mkdir -p /tmp/.var && chmod 1777 /tmp /tmp/.var && mount --bind /tmp/.var /var/tmp
else
	mount -t tmpfs -o mode=1777 tmp /tmp
fi
for f in fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do ln -sf /proc/self/${f#*:} /dev/${f%%:*}; done
[ -e /etc/passwd ] || echo root:x:0:0:root:/root:/bin/sh >/etc/passwd
[ -e /etc/group ] || echo root:x:0: >/etc/group
hostname tare-vm
ifconfig lo 127.0.0.1 up
. /etc/tare-vm-cgroups
out=/dev/$(cat /etc/tare-vm-output)
stty -F $out raw 115200
{ /bin/sh /etc/tare-vm-command; s=$?; echo; echo "tare-vm-exit: $s"; } 2>&1 </dev/null | cat >$out
sync
poweroff -f
`

const cgroupsV2 = `mount -t cgroup2 cgroup2 /sys/fs/cgroup
`

const cgroupsHybrid = `mount -t tmpfs -o mode=0755 cgroup /sys/fs/cgroup
for c in blkio cpu,cpuacct cpuset devices freezer hugetlb memory net_cls,net_prio perf_event pids rdma; do
	mkdir /sys/fs/cgroup/$c
	mount -t cgroup -o $c cgroup /sys/fs/cgroup/$c 2>/dev/null || rmdir /sys/fs/cgroup/$c
done
for l in cpu:cpu,cpuacct cpuacct:cpu,cpuacct net_cls:net_cls,net_prio net_prio:net_cls,net_prio; do
	[ ! -d /sys/fs/cgroup/${l#*:} ] || ln -s ${l#*:} /sys/fs/cgroup/${l%%:*}
done
mkdir /sys/fs/cgroup/systemd /sys/fs/cgroup/unified
mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
`

// Busybox returns the file of a static busybox for an architecture.
func Busybox(arch string) (string, error) {
	if arch == runtime.GOARCH {
		path, err := exec.LookPath("busybox")
		if err != nil {
			return "", fmt.Errorf("%w: busybox (busybox-static) is needed", ErrUnavailable)
		}
		return path, nil
	}
	dir, err := Package{Name: "busybox-static", Arch: arch}.fetch()
	if err != nil {
		return "", err
	}
	for _, name := range []string{"bin/busybox", "usr/bin/busybox"} {
		if path := filepath.Join(dir, name); fileExists(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: package busybox-static:%s holds no busybox", ErrUnavailable, arch)
}

func (m *Machine) writeInitramfs(file string, argv []string) error {
	busybox, err := Busybox(m.Kernel.Arch)
	if err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	a := newArchive(w)
	a.add("dev/console", syscall.S_IFCHR|0o600, 0, 5<<8|1, nil)
	a.tree("bin/busybox", busybox)
	prefix := ""
	if m.Disk != "" {
		prefix = "files"
		m.diskFiles(a)
	} else {
		a.text("init", 0o755, initScript)
	}
	a.text("bin/sh", 0, "busybox")
	a.text("etc/tare-vm-cgroups", 0o644, map[Cgroups]string{"": cgroupsV2, CgroupV2: cgroupsV2, CgroupHybrid: cgroupsHybrid}[m.Cgroups])
	a.text("etc/tare-vm-command", 0o644, m.command(argv))
	a.text("etc/tare-vm-output", 0o644, outputOf(m.Kernel.Arch)+"\n")
	modules := m.Modules
	if m.Scratch {
		a.text("etc/tare-vm-scratch", 0o644, "")
	}
	if m.Disk != "" || m.Scratch {
		modules = append([]string{"virtio_pci", "virtio_blk", "ext4"}, modules...)
	}
	mods, err := m.Kernel.modules(modules)
	if err != nil {
		return err
	}
	list := ""
	for _, mod := range mods {
		a.tree("lib/modules/"+filepath.Base(mod), mod)
		list += "/lib/modules/" + filepath.Base(mod) + "\n"
	}
	a.text("etc/tare-vm-modules", 0o644, list)
	for name, host := range m.Files {
		a.tree(prefix+name, host)
	}
	if err := a.close(); err != nil {
		return err
	}
	return errors.Join(w.Flush(), f.Close())
}

// text adds a file, or with mode 0 a symbolic link, with the given content.
func (a *archive) text(name string, mode uint32, content string) {
	kind := uint32(syscall.S_IFREG)
	if mode == 0 {
		kind, mode = syscall.S_IFLNK, 0o777
	}
	a.add(name, kind|mode, uint32(len(content)), 0, stringReader(content))
}

func (m *Machine) command(argv []string) string {
	var b strings.Builder
	for _, kv := range m.Env {
		fmt.Fprintf(&b, "export %s\n", quote(kv))
	}
	if m.Dir != "" {
		fmt.Fprintf(&b, "cd %s || exit 125\n", quote(m.Dir))
	}
	for _, a := range argv {
		b.WriteString(quote(a) + " ")
	}
	return b.String() + "\n"
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func stringReader(s string) io.Reader { return bytes.NewReader([]byte(s)) }

func or(v, d int) int {
	if v == 0 {
		return d
	}
	return v
}
