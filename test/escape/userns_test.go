package escape

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestBindsOfOthers has containers whose root may mount, on binds of the host's mounts: issue 7, A1.
func TestBindsOfOthers(t *testing.T) {
	admin := capEdit("CAP_SYS_ADMIN CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN CAP_DAC_OVERRIDE", "", "")
	mapped := `,"uidMappings":[{"containerID":0,"hostID":100000,"size":65536}],"gidMappings":[{"containerID":0,"hostID":100000,"size":65536}]`
	bind := func(src, options, more string) string {
		return `mounts+=[{"destination":"/vol","type":"none","source":"` + src + `","options":[` + options + `]` + more + `}]`
	}
	kinds := []struct {
		name, options, more string
		userns              bool
	}{
		{"bind without a user namespace", `"bind"`, "", false},
		{"bind in a user namespace", `"bind"`, "", true},
		{"rbind in a user namespace", `"rbind"`, "", true},
		{"id-mapped bind", `"bind","idmap"`, mapped, false},
		{"id-mapped rbind", `"rbind","ridmap"`, mapped, false},
		{"id-mapped bind in a user namespace", `"bind","idmap"`, mapped, true},
	}
	bundle := func(h *H, src, options, more string, inUser bool) *Bundle {
		b := h.Bundle().Edit(admin, bind(src, options, more))
		if inUser {
			b.Edit(userns, idMaps(100000, 65536))
			rootfsOf(100000)(h, b)
		}
		return b
	}
	for _, k := range kinds {
		row(t, "issue7 A1 what the container mounts stays inside, "+k.name, func(h *H) {
			src := h.TempDir()
			if err := os.Mkdir(src+"/sub", 0o777); err != nil {
				h.Fatalf("%v", err)
			}
			h.Want(h.Run(bundle(h, src, k.options, k.more, k.userns).Sh("mount -t tmpfs leak /vol/sub && grep -c ' /vol/sub ' /proc/self/mountinfo")), "1", 0)
			data, _ := os.ReadFile("/proc/self/mountinfo")
			if strings.Contains(string(data), src+"/sub ") {
				h.Errorf("the container's mount is on the host's %s/sub", src)
				unix.Unmount(src+"/sub", unix.MNT_DETACH)
			}
		})
	}
	for _, k := range kinds {
		if !k.userns { // without a user namespace the container's root with CAP_SYS_ADMIN may change all of its mounts
			continue
		}
		row(t, "issue7 A1 flags of the host's mount stay locked, "+k.name, func(h *H) {
			src := h.TempDir()
			if err := unix.Mount("t", src, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=777"); err != nil {
				h.Fatalf("%v", err)
			}
			h.Cleanup(func() { unix.Unmount(src, unix.MNT_DETACH) })
			h.File(src+"/file", "canary", 0o666)
			if err := unix.Mount("", src, "", unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_BIND|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
				h.Fatalf("%v", err)
			}
			b := bundle(h, src, k.options, k.more, true).Sh("for o in rw,nosuid,nodev,noexec ro,suid,nodev,noexec ro,nosuid,dev,noexec ro,nosuid,nodev,exec; do mount -o remount,bind,$o /vol && echo UNLOCKED $o; done; echo hacked >/vol/file; awk '$5==\"/vol\"{print $6}' /proc/self/mountinfo")
			r := h.Run(b)
			if r.Code != 0 {
				h.Errorf("status %d: %s", r.Code, r.Stderr)
			}
			if strings.Contains(r.Stdout, "UNLOCKED") {
				h.Errorf("the container changed locked flags: %s", r.Stdout)
			}
			for _, o := range []string{"ro", "nosuid", "nodev", "noexec"} {
				if !strings.Contains(","+lastWord(r.Stdout)+",", ","+o+",") {
					h.Errorf("the bind lost %s: %s", o, r.Stdout)
				}
			}
			if data, _ := os.ReadFile(src + "/file"); string(data) != "canary" {
				h.Errorf("a read-only file of the host was written")
			}
		})
		row(t, "issue7 A1 what is covered stays covered, "+k.name, func(h *H) {
			src := h.TempDir()
			h.File(src+"/sub/secret", "secret", 0o644)
			if err := unix.Mount("t", filepath.Join(src, "sub"), "tmpfs", 0, "mode=755"); err != nil {
				h.Fatalf("%v", err)
			}
			h.Cleanup(func() { unix.Unmount(src+"/sub", unix.MNT_DETACH) })
			b := bundle(h, src, k.options, k.more, true).Sh("umount /vol/sub && echo LIFTED; cat /vol/sub/secret; true")
			if r := h.Run(b); r.Stdout != "" { // refusing such a bind is as good
				h.Errorf("the container sees what the host has covered: %q", r.Stdout)
			}
		})
	}
}

func lastWord(s string) string {
	f := strings.Fields(s)
	if len(f) == 0 {
		return ""
	}
	return f[len(f)-1]
}

// TestDevicesOfMappedRoot is about a user namespace whose root is the host's: the default devices are the host's nodes
// (issue 7 F13).
func TestDevicesOfMappedRoot(t *testing.T) {
	row(t, "issue7 F13 a mapped root cannot change the host's devices", func(h *H) {
		b := h.Bundle().Edit(userns, idMaps(0, 65536)).
			Sh("for d in null zero full random urandom tty; do chmod 666 /dev/$d && echo changed $d; done 2>/dev/null; echo x >/dev/null && echo written")
		rootfsOf(0)(h, b)
		h.Want(h.Run(b), "written", 0)
	})
}
