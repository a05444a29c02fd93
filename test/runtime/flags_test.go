package runtime

import (
	"fmt"
	"os"
	"slices"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// flagSources are mounts of the host that are bound, by the flags that they have.
var flagSources = []struct {
	name  string
	flags uintptr
}{
	{"none", 0}, {"ro", unix.MS_RDONLY}, {"nosuid", unix.MS_NOSUID}, {"nodev", unix.MS_NODEV}, {"noexec", unix.MS_NOEXEC},
	{"noatime", unix.MS_NOATIME}, {"nodiratime", unix.MS_NODIRATIME}, {"strictatime", unix.MS_STRICTATIME},
	{"all", unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME},
}

// flagOptions are options of a bind, and what they change; "atime=" is the field that noatime, relatime and strictatime are values of.
var flagOptions = []struct {
	options string
	set     string
	clear   string
}{
	{"", "", ""}, {"ro", "ro", ""}, {"rw", "", "ro"}, {"nosuid", "nosuid", ""}, {"suid", "", "nosuid"}, {"nodev", "nodev", ""}, {"dev", "", "nodev"},
	{"noexec", "noexec", ""}, {"exec", "", "noexec"}, {"nodiratime", "nodiratime", ""}, {"diratime", "", "nodiratime"},
	{"noatime", "atime=noatime", ""}, {"relatime", "atime=relatime", ""}, {"strictatime", "atime=strictatime", ""},
	{"atime", "atime=relatime", "only noatime"}, {"norelatime", "atime=strictatime", "only relatime"}, {"nostrictatime", "atime=relatime", "only strictatime"},
	{"rw suid", "", "ro nosuid"}, {"ro exec dev", "ro", "noexec nodev"}, {"nosuid ro", "ro nosuid", ""}, {"ro rw", "", "ro"}, {"defaults", "", ""},
	{"noexec relatime", "noexec atime=relatime", ""},
}

// flagWords are a mount's flags as mountinfo writes them, sorted; the access time is always named.
func flagWords(text string) string {
	words := map[string]bool{}
	atime := "strictatime"
	for _, w := range strings.Split(text, ",") {
		switch w {
		case "noatime", "relatime":
			atime = w
		case "rw", "":
		default:
			words[w] = true
		}
	}
	words["atime="+atime] = true
	return join(words)
}

func join(words map[string]bool) string {
	out := make([]string, 0, len(words))
	for w := range words {
		out = append(out, w)
	}
	sort.Strings(out)
	return strings.Join(out, " ")
}

// wantFlags is what a bind has after the options, and whether the options clear or replace something that the source has.
func wantFlags(source, set, clear string) (flags string, loses bool) {
	words := map[string]bool{}
	for _, w := range strings.Fields(source) {
		words[w] = true
	}
	has := func(prefix string) string {
		for w := range words {
			if strings.HasPrefix(w, prefix) {
				return w
			}
		}
		return ""
	}
	if only, ok := strings.CutPrefix(clear, "only "); ok {
		if !words["atime="+only] {
			return join(words), false
		}
		clear = ""
	}
	for _, w := range strings.Fields(clear) {
		loses = loses || words[w]
		delete(words, w)
	}
	for _, w := range strings.Fields(set) {
		if strings.HasPrefix(w, "atime=") {
			old := has("atime=")
			loses = loses || old != w
			delete(words, old)
		}
		loses = loses || w == "nodiratime" && !words[w] // locked as a part of the access time
		words[w] = true
	}
	return join(words), loses
}

// mountFlagSources mounts one tmpfs for each of flagSources below a directory and returns their flags as this process sees them.
func mountFlagSources(h *H, dir string) map[string]string {
	for _, s := range flagSources {
		d := dir + "/" + s.name
		if err := os.Mkdir(d, 0o755); err != nil {
			h.Fatalf("%v", err)
		}
		if err := unix.Mount("t", d, "tmpfs", s.flags, "mode=755"); err != nil {
			h.Fatalf("mount %s: %v", s.name, err)
		}
		h.Cleanup(func() { unix.Unmount(d, unix.MNT_DETACH) })
	}
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		h.Fatalf("%v", err)
	}
	have := map[string]string{}
	for _, l := range strings.Split(string(data), "\n") {
		if f := strings.Fields(l); len(f) > 6 && strings.HasPrefix(f[4], dir+"/") {
			have[f[4][len(dir)+1:]] = flagWords(f[5])
		}
	}
	return have
}

func bindEdit(dest, source, options string) string {
	return mnt(dest, "none", source, append([]string{"rbind"}, strings.Fields(options)...)...)
}

// wantBinds runs a container with the binds /m/NAME and compares their flags.
func wantBinds(h *H, b *Bundle, want map[string]string) {
	b.Sh(`awk '$5 ~ "^/m/" {print $5, $6}' /proc/self/mountinfo`)
	r := h.Run(b)
	if r.Code != 0 {
		h.Errorf("status %d: %s", r.Code, r.Stderr)
		return
	}
	for _, l := range strings.Split(strings.TrimSpace(r.Stdout), "\n") {
		f := strings.Fields(l)
		name := strings.TrimPrefix(f[0], "/m/")
		if got := flagWords(f[1]); got != want[name] {
			h.Errorf("source %s: flags %q, want %q", name, got, want[name])
		}
		delete(want, name)
	}
	for name := range want {
		h.Errorf("source %s: not mounted", name)
	}
}

// TestBindFlags: options of a bind change what they name and nothing else.
func TestBindFlags(t *testing.T) {
	for _, o := range flagOptions {
		row(t, fmt.Sprintf("M16 bind options %q", o.options), func(h *H) {
			dir := h.TempDir()
			have := mountFlagSources(h, dir)
			b, want := h.Bundle(), map[string]string{}
			for name, flags := range have {
				b.Edit(bindEdit("/m/"+name, dir+"/"+name, o.options))
				want[name], _ = wantFlags(flags, o.set, o.clear)
			}
			wantBinds(h, b, want)
		})
		row(t, fmt.Sprintf("M16 bind options %q in a user namespace", o.options), func(h *H) {
			dir := h.TempDir()
			have := mountFlagSources(h, dir)
			b, want := h.Bundle().Edit(userns, idMaps(100000, 65536)), map[string]string{}
			rootfsOf(100000)(h, b)
			for name, flags := range have {
				after, loses := wantFlags(flags, o.set, o.clear)
				if !loses {
					b.Edit(bindEdit("/m/"+name, dir+"/"+name, o.options))
					want[name] = after
					continue
				}
				refused := h.Bundle().Edit(userns, idMaps(100000, 65536), bindEdit("/m", dir+"/"+name, o.options))
				rootfsOf(100000)(h, refused)
				h.Write(refused)
				h.FailRT("operation not permitted", "run", "--bundle", refused.Dir, refused.ID)
				os.RemoveAll(refused.Dir)
			}
			wantBinds(h, b, want)
		})
	}
}

var defaultFileCases = []Case{
	{Row: "D1 a mount of the configuration wins over default devices and links", Setup: withFile("f", "mine"), Edit: []string{
		mnt("/dev/random", "none", "f", "bind"), mnt("/dev/tty", "tmpfs", "t", "mode=700"), mnt("/dev/ptmx", "none", "f", "bind"), mnt("/dev/fd", "none", "f", "bind"),
		mnt("/dev/stdin", "tmpfs", "t"), mnt("/dev/zero", "none", "/dev/full", "bind"), mnt("/dev/core", "none", "f", "bind")},
		Sh:  "cat /dev/random /dev/ptmx /dev/fd /dev/core; stat -c %a /dev/tty; grep -c ' /dev/stdin ' /proc/mounts; stat -c %t:%T /dev/zero",
		Out: "minemineminemine700\n1\n1:7"},
	{Row: "D1 a mount of the configuration wins over /dev/null", Setup: withFile("f", "mine"), Edit: []string{mnt("/dev/null", "none", "f", "bind")}, Sh: "cat /dev/null", Out: "mine"},
	{Row: "D1 a mount of the configuration wins in a user namespace", Setup: func(h *H, b *Bundle) { withFile("f", "mine")(h, b); rootfsOf(100000)(h, b) },
		Edit: []string{userns, idMaps(100000, 65536), mnt("/dev/random", "none", "f", "bind"), mnt("/dev/tty", "tmpfs", "t", "mode=700"), mnt("/dev/ptmx", "tmpfs", "t")},
		Sh:   "cat /dev/random; stat -c %a /dev/tty; grep -c ' /dev/ptmx ' /proc/mounts; stat -c %t:%T /dev/zero", Out: "mine700\n1\n1:5"},
	{Row: "D5 a listed device is compared with what is mounted there", Setup: withFile("f", "mine"), Edit: []string{mnt("/dev/n", "none", "f", "bind"), device(`{"path":"/dev/n","type":"c","major":1,"minor":3}`)}, Err: "/dev/n"},
	{Row: "M13 tmpfs on a new directory", Edit: []string{mnt("/new/dir", "tmpfs", "t"), mnt("/new2", "tmpfs", "t", "mode=711")}, Sh: "stat -c %a /new /new/dir /new2", Out: "755\n1777\n711"},
	{Row: "M13 tmpfs on a directory that is there", Setup: func(h *H, b *Bundle) {
		for name, mode := range map[string]os.FileMode{"a": 0o755, "b": 0o700, "c": 0o777 | os.ModeSticky, "d": 0o750 | os.ModeSetgid} {
			if err := os.Mkdir(b.Rootfs+"/"+name, 0o755); err != nil {
				h.Fatalf("%v", err)
			}
			if err := os.Chmod(b.Rootfs+"/"+name, mode); err != nil {
				h.Fatalf("%v", err)
			}
		}
	}, Edit: []string{mnt("/a", "tmpfs", "t"), mnt("/b", "tmpfs", "t"), mnt("/c", "tmpfs", "t", "ro"), mnt("/d", "tmpfs", "t", "size=1m")}, Sh: "stat -c %a /a /b /c /d", Out: "755\n700\n1777\n2750"},
	{Row: "M8 words of podman on a bind", Setup: withFile("sub/f", "x"), Edit: []string{mnt("/a", "bind", "sub", "rbind", "copy"), mnt("/b", "bind", "sub", "nocopy", "bind", "rw")}, Sh: "cat /a/f /b/f", Out: "xx"},
	{Row: "M8 words of podman on a file system", Edit: []string{mnt("/a", "tmpfs", "t", "nocopy")}, Err: "nocopy"},
	{Row: "MO remount where nothing is mounted", Edit: []string{mnt("/etc", "tmpfs", "t", "remount", "ro")}, Err: "/etc"},
	{Row: "MO remount alone where nothing is mounted", Edit: []string{mnt("/etc", "tmpfs", "t", "remount")}, Err: "/etc"},
	{Row: "MO remount of a bind changes what it names", Setup: withFile("sub/", ""), Edit: []string{mnt("/t", "none", "sub", "bind", "nosuid", "noexec"), mnt("/t", "none", "sub", "remount", "bind", "ro", "exec")},
		Sh: mountOpts("/t"), Out: "~^ro,nosuid,relatime$"},
	{Row: "M1 a mount point inside of a read-only file system", Edit: []string{mnt("/a", "tmpfs", "t", "ro"), mnt("/a/b/c", "tmpfs", "t")},
		Sh: "touch /a/x 2>/dev/null || echo ro; touch /a/b/c/x && echo rw", Out: "ro\nrw"},
	{Row: "P6 a missing working directory and a read-only root", Edit: []string{`root.readonly=true`, `process.cwd="/n1/../n2//n3/"`, `process.user={"uid":1000,"gid":1000}`}, Sh: "pwd; stat -c %a:%u /n2/n3", Out: "/n2/n3\n755:0"},
	{Row: "P6 a working directory that cannot be made", Edit: []string{`process.cwd="/etc/f/x"`}, Setup: withFile("rootfs/etc/f", ""), Err: "/etc/f"},
	{Row: "MA1 the same path twice", Edit: []string{`linux.maskedPaths=["/proc/keys","/proc/keys","/proc//keys","/proc/./acpi","/proc/acpi","/etc","/etc/"]`},
		Sh: "grep -c ' /proc/keys ' /proc/self/mountinfo; grep -c ' /etc ' /proc/self/mountinfo", Out: "1\n1"},
	{Row: "MA2 the same path twice", Edit: []string{`linux.readonlyPaths=["/proc/sys","/proc/sys/","/proc/sys","/etc","/etc"]`},
		Sh: "grep -c ' /proc/sys ' /proc/self/mountinfo; grep -c ' /etc ' /proc/self/mountinfo; touch /etc/x 2>/dev/null || echo ro", Out: "1\n1\nro"},
	{Row: "MA2 all of proc read-only, with masks", Edit: []string{`linux.readonlyPaths=["/proc","/sys"]`, `linux.maskedPaths=["/proc/uptime","/sys/kernel"]`},
		Sh: "wc -c </proc/uptime; ls /sys/kernel; echo 1 2>/dev/null >/proc/sys/kernel/shmmax || echo ro", Code: 0, Out: "0\nro"},
	{Row: "MA2 the root", Edit: []string{`linux.readonlyPaths=["/"]`}, Sh: "touch /x 2>/dev/null || echo ro", Out: "ro"},
	{Row: "MA1 the root", Edit: []string{`linux.maskedPaths=["/"]`}, Err: "maskedPaths"},
}

func TestDefaultFiles(t *testing.T) {
	runCases(t, defaultFileCases)
	row(t, "HK6 a hook writes into a read-only file system", func(h *H) {
		b := h.Bundle().Edit(mnt("/a", "tmpfs", "t", "ro")).Sh("touch /a/x 2>/dev/null || echo ro; ls /a")
		b.Edit(`hooks.createContainer=[{"path":"/bin/sh","args":["sh","-c","echo >` + b.Rootfs + `/a/hook"]}]`)
		h.Want(h.Run(b), "ro\nhook", 0)
	})
}

// everyOption are the options of the specification's table and what mountinfo then has; "" is nothing of its own.
var everyOption = map[string]string{
	"async": "", "atime": "", "defaults": "", "dev": "", "diratime": "", "dirsync": "", "exec": "", "iversion": "", "lazytime": "", "loud": "", "mand": "",
	"noatime": "noatime", "nodev": "nodev", "nodiratime": "nodiratime", "noexec": "noexec", "noiversion": "", "nolazytime": "", "nomand": "", "norelatime": "atime=strictatime",
	"nostrictatime": "atime=relatime", "nosuid": "nosuid", "nosymfollow": "nosymfollow", "private": "", "ratime": "atime=relatime", "rdev": "", "rdiratime": "", "relatime": "atime=relatime",
	"rexec": "", "rnoatime": "atime=noatime", "rnodev": "nodev", "rnodiratime": "nodiratime", "rnoexec": "noexec", "rnorelatime": "atime=strictatime", "rnostrictatime": "atime=relatime",
	"rnosuid": "nosuid", "rnosymfollow": "nosymfollow", "ro": "ro", "rprivate": "", "rrelatime": "atime=relatime", "rro": "ro", "rrw": "", "rshared": "", "rslave": "",
	"rstrictatime": "atime=strictatime", "rsuid": "", "rsymfollow": "", "runbindable": "", "rw": "", "shared": "", "silent": "", "slave": "", "strictatime": "atime=strictatime",
	"suid": "", "symfollow": "", "sync": "", "unbindable": "", "tmpcopyup": "",
}

// TestEveryOption: each option is taken on a file system and on a bind, one container for all.
func TestEveryOption(t *testing.T) {
	for _, kind := range []string{"a file system", "a bind"} {
		row(t, "MO every option on "+kind, func(h *H) {
			src := h.TempDir()
			if err := unix.Mount("t", src, "tmpfs", 0, ""); err != nil {
				h.Fatalf("%v", err)
			}
			h.Cleanup(func() { unix.Unmount(src, unix.MNT_DETACH) })
			b := h.Bundle().Sh(`awk '$5 ~ "^/o/" {print $5, $6}' /proc/self/mountinfo`)
			for o := range everyOption {
				if kind == "a file system" {
					b.Edit(mnt("/o/"+o, "tmpfs", "t", o))
				} else if o != "tmpcopyup" {
					b.Edit(mnt("/o/"+o, "none", src, "rbind", o))
				}
			}
			r := h.Run(b)
			if r.Code != 0 {
				h.Fatalf("status %d: %s", r.Code, r.Stderr)
			}
			seen := 0
			for _, l := range strings.Split(strings.TrimSpace(r.Stdout), "\n") {
				f := strings.Fields(l)
				o := strings.TrimPrefix(f[0], "/o/")
				words := strings.Fields(flagWords(f[1]))
				seen++
				if want := everyOption[o]; want != "" && !slices.Contains(words, want) && !slices.Contains(words, "atime="+want) {
					h.Errorf("option %s: %s", o, f[1])
				}
			}
			if seen < len(everyOption)-1 {
				h.Errorf("%d mounts", seen)
			}
		})
	}
}
