package vm

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// SystemdDisk returns a disk with a minimal Debian of the host's release whose init is systemd, with a bus for the
// system and one for each user, podman and criu. It is made once, by debootstrap, and kept in .cache/vm. ErrUnavailable
// where that does not work.
func SystemdDisk() (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	release := codename()
	disk := filepath.Join(cache, "systemd-"+release+".ext4")
	if fileExists(disk) {
		return disk, nil
	}
	tmp, err := os.MkdirTemp(cache, "disk-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	root, image := filepath.Join(tmp, "root"), filepath.Join(tmp, "image")
	for _, argv := range [][]string{
		// In a mount namespace of its own: debootstrap mounts below the root that it makes.
		{"unshare", "--mount", "sh", "-c", makeRoot, "sh", release, root},
		{"rm", "-rf", root + "/var/cache/apt", root + "/var/lib/apt/lists", root + "/usr/share/doc", root + "/usr/share/locale"},
		{"mke2fs", "-q", "-t", "ext4", "-d", root, image, "1000M"},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			lines := strings.Split(string(bytes.TrimSpace(out)), "\n")
			return "", fmt.Errorf("%w: %s: %w: %s", ErrUnavailable, argv[0], err, lines[len(lines)-1])
		}
	}
	return disk, os.Rename(image, disk)
}

// makeRoot installs release $1 in directory $2. Without podman and criu, whose packages debootstrap does not get into
// order, their tests are skipped with that reason.
const makeRoot = `debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd "$1" "$2" || exit
export DEBIAN_FRONTEND=noninteractive
chroot "$2" apt-get update -q && chroot "$2" apt-get install -y -q --no-install-recommends podman crun criu || true
`

// codename is the host's release, whose keys debootstrap has.
func codename() string {
	f, err := os.Open("/etc/os-release")
	if err != nil {
		return "stable"
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "VERSION_CODENAME="); ok {
			return strings.Trim(name, `"`)
		}
	}
	return "stable"
}

// diskInit is the initramfs's program of a machine with a disk: it mounts the disk, whose changes are thrown away, copies the files to it
// and hands over to its systemd, which runs the command as a service once everything else has started.
const diskInit = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /proc /sys /dev /new
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r m; do insmod $m || echo "insmod $m: $?" >/dev/console; done </etc/tare-vm-modules
n=0
until mount -t ext4 /dev/vda /new; do n=$((n+1)); [ $n -lt 50 ] || exec poweroff -f; usleep 100000; done
cp -a /files/. /new/
cp /etc/tare-vm-command /etc/tare-vm-run /etc/tare-vm-output /new/etc/
echo tester:x:1000:1000::/home/tester:/bin/sh >>/new/etc/passwd
echo tester:x:1000: >>/new/etc/group
echo tester:!:19000:::::: >>/new/etc/shadow
for m in root tester; do echo $m:100000:65536 >>/new/etc/subuid; done
mkdir -p /new/home/tester && chown 1000:1000 /new/home/tester
cd /new/etc/systemd/system
mkdir -p multi-user.target.wants
for u in getty@tty1 serial-getty@ttyS0 serial-getty@ttyS1 systemd-timesyncd systemd-udevd systemd-udev-trigger systemd-networkd systemd-resolved \
	e2scrub_reap apt-daily apt-daily-upgrade systemd-random-seed systemd-update-utmp ifupdown-pre networking; do ln -sf /dev/null $u.service; done
for u in apt-daily apt-daily-upgrade e2scrub_all dpkg-db-backup fstrim systemd-tmpfiles-clean; do ln -sf /dev/null $u.timer; done
cat >tare-vm.service <<X
[Unit]
After=dbus.service systemd-logind.service
[Service]
Type=simple
ExecStart=/bin/sh /etc/tare-vm-run
X
ln -sf ../tare-vm.service multi-user.target.wants/tare-vm.service
umount /proc /sys
exec switch_root /new /sbin/init
`

// diskRun is what the service executes.
const diskRun = `out=/dev/$(cat /etc/tare-vm-output)
stty -F $out raw 115200
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
{ /bin/sh /etc/tare-vm-command; s=$?; echo; echo "tare-vm-exit: $s"; } 2>&1 </dev/null | cat >$out
sync
systemctl poweroff -ff
`

// diskFiles adds what a machine with a disk has in place of init and the layout of cgroups.
func (m *Machine) diskFiles(a *archive) {
	a.text("init", 0o755, diskInit)
	a.text("etc/tare-vm-run", 0o644, diskRun)
	a.add("files", 0o040755, 0, 0, nil)
}

// diskArgs are QEMU's arguments for the disk and the kernel's for systemd.
func (m *Machine) diskArgs() (qemu []string, kernel string) {
	if m.Disk == "" {
		return nil, ""
	}
	kernel = " systemd.unified_cgroup_hierarchy=1"
	if m.Cgroups == CgroupHybrid {
		kernel = " systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"
	}
	return []string{"-drive", "file=" + m.Disk + ",if=virtio,format=raw,snapshot=on"}, kernel
}
