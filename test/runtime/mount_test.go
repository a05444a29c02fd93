package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mountOpts prints the per-mount options of the mount on a directory.
func mountOpts(dest string) string { return `awk '$5=="` + dest + `"{print $6}' /proc/self/mountinfo` }

func withFile(path, content string) func(*H, *Bundle) {
	return func(h *H, b *Bundle) { inBundle(h, b, path, content) }
}

func withLink(target, path string) func(*H, *Bundle) {
	return func(h *H, b *Bundle) {
		if err := os.Symlink(target, filepath.Join(b.Rootfs, path)); err != nil {
			h.Fatalf("%v", err)
		}
	}
}

var mountCases = []Case{
	{Row: "M1 listed order", Edit: []string{mnt("/a", "tmpfs", "t"), mnt("/a/b", "tmpfs", "t")}, Sh: "grep -o ' /a ' /proc/mounts && grep -o ' /a/b ' /proc/mounts", Out: "/a \n /a/b"},
	{Row: "M1 reversed order hides", Edit: []string{mnt("/a/b", "tmpfs", "t"), mnt("/a", "tmpfs", "t")}, Sh: "ls -a /a | wc -l", Out: "2"},
	{Row: "M2 relative destination", Edit: []string{mnt("reld", "tmpfs", "t")}, Sh: "grep -o ' /reld ' /proc/mounts", Out: "/reld"},
	{Row: "M3 symbolic link as destination stays inside", Edit: []string{mnt("/link/x", "tmpfs", "t")}, Setup: withLink("/etc", "link"),
		Sh: "grep -o ' /etc/x ' /proc/mounts", Out: "/etc/x"},
	{Row: "M3 dots as destination stay inside", Edit: []string{mnt("/../../../y", "tmpfs", "t")}, Sh: "grep -o ' /y ' /proc/mounts", Out: "/y"},
	{Row: "M3 chain of links and dots stays inside", Edit: []string{mnt("/l1/z", "tmpfs", "t")}, Setup: func(h *H, b *Bundle) {
		withLink("../../../../l2", "l1")(h, b)
		withLink("/../../etc", "l2")(h, b)
	}, Sh: "grep -o ' /etc/z ' /proc/mounts", Out: "/etc/z"},
	{Row: "M4 destination is the root", Edit: []string{mnt("/", "tmpfs", "t")}, Err: "*"},
	{Row: "M5 missing directory is made", Edit: []string{mnt("/n1/n2", "tmpfs", "t")}, Sh: "stat -c %a /n1", Out: "755"},
	{Row: "M5 missing file is made for a file", Setup: withFile("f", "content"), Edit: []string{mnt("/new/f", "none", "f", "bind")}, Sh: "cat /new/f", Out: "content"},
	{Row: "M5 file on a directory", Setup: withFile("f", "content"), Edit: []string{mnt("/etc", "none", "f", "bind")}, Err: "*"},
	{Row: "M6 bind below proc is refused", Setup: withFile("d/", ""), Edit: []string{mnt("/proc/self", "none", "d", "bind")}, Err: "proc"},
	{Row: "M6 tmpfs on proc is refused", Edit: []string{mnt("/proc", "tmpfs", "t")}, Err: "proc"},
	{Row: "M6 directory on proc is refused", Setup: withFile("d/", ""), Edit: []string{mnt("/proc", "none", "d", "bind")}, Err: "proc"},
	{Row: "M6 attr is refused", Edit: []string{mnt("/proc/self/attr", "tmpfs", "t")}, Err: "proc"},
	{Row: "M6 dots into proc are refused", Setup: withFile("d/", ""), Edit: []string{mnt("/tmp/../proc/sys", "none", "d", "bind")}, Err: "proc"},
	{Row: "M6 link into proc is refused", Setup: func(h *H, b *Bundle) { withFile("d/", "")(h, b); withLink("/proc/sys", "p")(h, b) },
		Edit: []string{mnt("/p", "none", "d", "bind")}, Err: "*"},
	{Row: "M6 lxcfs files are allowed", Setup: withFile("up", "1.00 2.00"), Edit: []string{mnt("/proc/uptime", "none", "up", "bind")},
		Sh: "cat /proc/uptime", Out: "1.00 2.00"},
	{Row: "M7 source relative to the bundle", Setup: withFile("sub/f", "x"), Edit: []string{mnt("/d", "none", "sub", "bind")}, Sh: "cat /d/f", Out: "x"},
	{Row: "M8 rbind with any type", Setup: withFile("sub/f", "x"), Edit: []string{mnt("/d", "whatever", "sub", "rbind")}, Sh: "cat /d/f", Out: "x"},
	{Row: "M9 missing source", Edit: []string{mnt("/d", "none", "/no/such/source", "bind")}, Err: "no such file or directory"},
	{Row: "M9 unknown file system", Edit: []string{mnt("/d", "nosuchfs", "x")}, Err: "no such device"},
	{Row: "M10 data reaches the file system", Edit: []string{mnt("/t", "tmpfs", "t", "size=4m", "mode=700")}, Sh: "df -m /t | awk 'END{print $2}'; stat -c %a /t", Out: "4\n700"},
	{Row: "M10 bad data", Edit: []string{mnt("/t", "tmpfs", "t", "size=4x")}, Err: "/t"},
	{Row: "M10 data on a bind", Setup: withFile("sub/", ""), Edit: []string{mnt("/t", "none", "sub", "bind", "size=4m")}, Err: "*"},
	{Row: "M11 cgroup", Sh: "ls /sys/fs/cgroup | tr '\n' ' '; touch /sys/fs/cgroup/memory/x 2>/dev/null || echo read-only", Out: "~memory.*read-only"},
	{Row: "M11 cgroup shows only its own", Sh: "ls -d /sys/fs/cgroup/memory/process_api 2>/dev/null; cat /sys/fs/cgroup/pids/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null | grep -x 1", Out: "1"},
	{Row: "M12 mqueue and shm", Sh: "grep -c -E ' /dev/(mqueue|shm) ' /proc/mounts", Out: "2"},
	{Row: "M12 sysfs without network namespace", Edit: []string{`linux.namespaces=[{"type":"pid"},{"type":"mount"},{"type":"ipc"},{"type":"uts"}]`}, Sh: "ls /sys/class/net | grep lo", Out: "lo"},
	{Row: "M13 tmpfs takes the mode of its directory", Setup: func(h *H, b *Bundle) {
		if err := os.Mkdir(filepath.Join(b.Rootfs, "m"), 0o700); err != nil {
			h.Fatalf("%v", err)
		}
	}, Edit: []string{mnt("/m", "tmpfs", "t")}, Sh: "stat -c %a /m", Out: "700"},
	{Row: "M15 read-only dev has its devices", Edit: []string{
		`mounts=[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/dev","type":"tmpfs","source":"t","options":["ro","mode=755"]}]`},
		Sh: "test -c /dev/null && touch /dev/x 2>/dev/null || echo read-only", Out: "read-only"},
	{Row: "MO flags", Edit: []string{mnt("/t", "tmpfs", "t", "noexec", "nosuid", "nodev", "noatime", "ro")}, Sh: mountOpts("/t"), Out: "ro,nosuid,nodev,noexec,noatime"},
	{Row: "MO later flag wins", Edit: []string{mnt("/t", "tmpfs", "t", "noexec", "exec", "ro", "rw", "nosuid", "suid")}, Sh: mountOpts("/t"), Out: "~^rw(,relatime)?$"},
	{Row: "MO nodiratime", Edit: []string{mnt("/t", "tmpfs", "t", "nodiratime")}, Sh: mountOpts("/t"), Out: "~nodiratime"},
	{Row: "MO strictatime", Edit: []string{mnt("/t", "tmpfs", "t", "strictatime")}, Sh: mountOpts("/t"), Out: "rw"},
	{Row: "MO nosymfollow", Edit: []string{mnt("/t", "tmpfs", "t", "nosymfollow")}, Sh: mountOpts("/t"), Out: "~nosymfollow"},
	{Row: "MO sync dirsync", Edit: []string{mnt("/t", "tmpfs", "t", "sync", "dirsync")}, Sh: "grep ' /t ' /proc/mounts", Out: "~sync.*dirsync"},
	{Row: "MO defaults", Edit: []string{mnt("/t", "tmpfs", "t", "defaults")}, Sh: "grep -q ' /t ' /proc/mounts"},
	{Row: "MO defaults on a bind", Setup: withFile("sub/", ""), Edit: []string{mnt("/t", "none", "sub", "bind", "defaults")}, Sh: "grep -q ' /t ' /proc/mounts"},
	{Row: "MO remount", Edit: []string{mnt("/t", "tmpfs", "t"), mnt("/t", "tmpfs", "t", "remount", "ro")}, Sh: "touch /t/x 2>/dev/null || echo read-only", Out: "read-only"},
	{Row: "MO bind ro", Setup: withFile("sub/", ""), Edit: []string{mnt("/t", "none", "sub", "bind", "ro", "noexec")}, Sh: mountOpts("/t"), Out: "~^ro,.*noexec"},
	{Row: "MO propagation shared", Edit: []string{mnt("/t", "tmpfs", "t", "shared")}, Sh: "grep ' /t ' /proc/self/mountinfo", Out: "~shared:"},
	{Row: "MO propagation private", Edit: []string{mnt("/t", "tmpfs", "t", "private")}, Sh: "grep ' /t ' /proc/self/mountinfo", Out: "~relatime - tmpfs"},
	{Row: "MO propagation unbindable", Edit: []string{mnt("/t", "tmpfs", "t", "unbindable")}, Sh: "grep ' /t ' /proc/self/mountinfo", Out: "~unbindable"},
	{Row: "MO rro on a file system", Edit: []string{mnt("/t", "tmpfs", "t", "rro")}, Sh: "touch /t/x 2>/dev/null || echo read-only", Out: "read-only"},
	{Row: "MO tmpcopyup", Edit: []string{mnt("/bin", "tmpfs", "t", "tmpcopyup")}, Sh: "grep -q ' /bin ' /proc/mounts && test -x /bin/busybox && touch /bin/new",
		After: func(h *H, b *Bundle, _ Result) {
			if _, err := os.Stat(filepath.Join(b.Rootfs, "bin/new")); err == nil {
				h.Errorf("what was written to the copy is in the root file system")
			}
		}},
	{Row: "RP1 shared", Edit: []string{`linux.rootfsPropagation="shared"`}, Sh: `awk '$5=="/"' /proc/self/mountinfo`, Out: "~shared:"},
	{Row: "RP1 slave", Edit: []string{`linux.rootfsPropagation="slave"`}, Sh: `awk '$5=="/"' /proc/self/mountinfo`, Out: "~relatime( master:[0-9]+)? - "},
	{Row: "RP1 private", Edit: []string{`linux.rootfsPropagation="private"`}, Sh: `awk '$5=="/"' /proc/self/mountinfo`, Out: "~relatime - "},
	{Row: "RP1 unbindable", Edit: []string{`linux.rootfsPropagation="unbindable"`}, Sh: `awk '$5=="/"' /proc/self/mountinfo`, Out: "~unbindable"},
	{Row: "RP1 unknown", Edit: []string{`linux.rootfsPropagation="foo"`}, Err: "rootfsPropagation=foo is not supported"},
	{Row: "RP2 a mount inside does not reach the host", Edit: []string{`process.capabilities.bounding+=["CAP_SYS_ADMIN"]`, `process.capabilities.permitted+=["CAP_SYS_ADMIN"]`,
		`process.capabilities.effective+=["CAP_SYS_ADMIN"]`, `linux.rootfsPropagation="rshared"`}, Setup: withFile("rootfs/inner/", ""), Sh: "mount -t tmpfs t /inner && sleep 60",
		Cmd: Cmd{}, Flags: []string{"-d"}, After: func(h *H, b *Bundle, _ Result) {
			h.Await("mount inside", func() bool {
				data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", h.State(b.ID).Pid))
				return strings.Contains(string(data), " /inner ")
			})
			data, _ := os.ReadFile("/proc/self/mounts")
			if strings.Contains(string(data), "inner") {
				h.Errorf("the host sees a mount made inside")
			}
		}},
	{Row: "MA1 masked", Edit: []string{`linux.maskedPaths=["/nope","/proc/cpuinfo","/sys/kernel"]`}, Sh: "wc -c </proc/cpuinfo; ls /sys/kernel; touch /sys/kernel/x 2>/dev/null || echo ro", Out: "0\nro"},
	{Row: "MA1 relative masked path", Edit: []string{`linux.maskedPaths=["proc/cpuinfo"]`}, Err: "proc/cpuinfo"},
	{Row: "MA1 mask does not follow a link out", Edit: []string{`linux.maskedPaths=["/lnk"]`}, Setup: withLink("/etc", "lnk"), Sh: "true"},
	{Row: "MA2 read-only", Sh: "echo 1 >/proc/sys/kernel/shmmax", Code: 1, Warn: "Read-only file system"},
	{Row: "MA2 read-only keeps flags", Edit: []string{mnt("/t", "tmpfs", "t", "noexec", "nosuid"), `linux.readonlyPaths=["/t","/missing"]`}, Sh: mountOpts("/t") + " | tail -1",
		Out: "~^ro,nosuid,noexec"},
	{Row: "MA2 relative read-only path", Edit: []string{`linux.readonlyPaths=["proc/sys"]`}, Err: "proc/sys"},
}

func TestMounts(t *testing.T) { runCases(t, mountCases) }

var idmapCases = []Case{
	{Row: "MO idmap with its own maps", Setup: withFile("src/f", "x"), Edit: []string{
		`mounts+=[{"destination":"/m","type":"none","source":"src","options":["bind","idmap"],"uidMappings":[{"containerID":0,"hostID":1000,"size":1}],"gidMappings":[{"containerID":0,"hostID":2000,"size":1}]}]`},
		Sh: "stat -c %u:%g /m/f", Out: "1000:2000"},
	{Row: "MO ridmap maps sub-mounts", Setup: withFile("src/f", "x"), Edit: []string{
		`mounts+=[{"destination":"/m","type":"none","source":"src","options":["rbind","ridmap"],"uidMappings":[{"containerID":0,"hostID":1000,"size":1}],"gidMappings":[{"containerID":0,"hostID":2000,"size":1}]}]`},
		Sh: "stat -c %u:%g /m/f", Out: "1000:2000"},
	{Row: "MO idmap without maps", Setup: withFile("src/f", "x"), Edit: []string{mnt("/m", "none", "src", "bind", "idmap")}, Err: "map"},
	{Row: "MO only one kind of maps", Setup: withFile("src/f", "x"), Edit: []string{
		`mounts+=[{"destination":"/m","type":"none","source":"src","options":["bind","idmap"],"uidMappings":[{"containerID":0,"hostID":1000,"size":1}]}]`}, Err: "*"},
}

func TestIDMappedMounts(t *testing.T) { runCases(t, idmapCases) }

// recursiveOptions are the options that reach sub-mounts of a bind, and what they show there.
var recursiveOptions = [][2]string{
	{"rro", "^ro"}, {"rnosuid", "nosuid"}, {"rnodev", "nodev"}, {"rnoexec", "noexec"}, {"rnoatime", "noatime"}, {"rnodiratime", "nodiratime"},
	{"rstrictatime", "^rw$"}, {"rrelatime", "relatime"}, {"rnosymfollow", "nosymfollow"},
}

func TestRecursiveOptions(t *testing.T) {
	for _, o := range recursiveOptions {
		row(t, "MO recursive "+o[0], func(h *H) {
			b := h.Bundle().Edit(mnt("/s", "tmpfs", "t"), mnt("/s/sub", "tmpfs", "t")).Sh("true")
			src := h.TempDir()
			mountTree(h, src)
			b.Edits = []string{mnt("/r", "none", src, "rbind", o[0])}
			b.Sh(mountOpts("/r/sub"))
			h.Want(h.Run(b), "~"+o[1], 0)
		})
	}
	for _, o := range recursiveOptions {
		row(t, "MO recursive "+o[0]+" on a file system", func(h *H) {
			b := h.Bundle().Edit(mnt("/t", "tmpfs", "t", o[0])).Sh(mountOpts("/t"))
			h.Want(h.Run(b), "~"+o[1], 0)
		})
	}
	row(t, "M16 flags of the source stay in a user namespace", func(h *H) {
		src := h.TempDir()
		if err := unix.Mount("t", src, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755"); err != nil {
			h.Fatalf("%v", err)
		}
		h.Cleanup(func() { unix.Unmount(src, unix.MNT_DETACH) })
		b := h.Bundle().Edit(userns, idMaps(100000, 65536), mnt("/t", "none", src, "bind", "ro")).Sh(mountOpts("/t"))
		rootfsOf(100000)(h, b)
		h.Want(h.Run(b), "~^ro,nosuid,nodev,noexec", 0)
	})
	row(t, "MO bind leaves sub-mounts out", func(h *H) {
		src := h.TempDir()
		mountTree(h, src)
		b := h.Bundle().Edit(mnt("/r", "none", src, "bind"), mnt("/rr", "none", src, "rbind", "ro"))
		b.Sh("grep -q ' /r/sub ' /proc/mounts || echo no; grep -q ' /rr/sub ' /proc/mounts && touch /rr/sub/x && echo writable")
		h.Want(h.Run(b), "no\nwritable", 0)
	})
}
