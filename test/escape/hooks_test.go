package escape

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestHooks is about what an image may tell to programs that run with the host's rights.
func TestHooks(t *testing.T) {
	hostile := `process.env=["PATH=/bin","LD_PRELOAD=/evil.so","LD_LIBRARY_PATH=/evil","GCONV_PATH=/evil","BASH_ENV=/evil.sh","ENV=/evil.sh"]`
	for _, kind := range []string{"prestart", "createRuntime", "createContainer", "poststart", "poststop"} {
		for name, env := range map[string]string{"with an environment": `"env":["PATH=/usr/bin:/bin"]`, "without": `"env":[]`} {
			row(t, "CVE-2025-23266 environment and directory of "+kind+" "+name, func(h *H) {
				out := filepath.Join(h.TempDir(), "out")
				if err := os.Chmod(filepath.Dir(out), 0o777); err != nil {
					h.Fatalf("%v", err)
				}
				b := h.Bundle().Edit(hostile, `process.cwd="/tmp"`, fmt.Sprintf(`hooks.%s=[{"path":"/bin/sh","args":["sh","-c","{ /usr/bin/env; echo CWD=$(pwd -P); } >%s"],%s}]`, kind, out, env))
				h.File(b.Rootfs+"/evil.sh", "echo evil\n", 0o755)
				h.Want(h.Run(b), "", 0)
				data, err := os.ReadFile(out)
				if err != nil {
					h.Fatalf("the hook has not run: %v", err)
				}
				for line := range strings.Lines(string(data)) {
					line = strings.TrimSpace(line)
					if strings.Contains(line, "evil") {
						h.Errorf("the image's environment reaches the hook: %s", line)
					}
					if dir, ok := strings.CutPrefix(line, "CWD="); ok && kind != "createContainer" && (dir == b.Rootfs || strings.HasPrefix(dir, b.Rootfs+"/")) {
						h.Errorf("the hook runs in the root file system: %s", dir)
					}
				}
			})
		}
	}
	row(t, "CVE-2025-24965 CVE-2026-84042 programs of the image are not run as hooks of the host", func(h *H) {
		// The same path exists on the host and in the image.
		b := h.Bundle()
		dir := h.TempDir()
		prog := h.File(dir+"/hook", "#!/bin/sh\necho host >"+dir+"/ran\n", 0o755)
		h.File(b.Rootfs+prog, "#!/bin/sh\necho image >/ran\n", 0o755)
		for _, kind := range []string{"prestart", "createRuntime", "createContainer", "poststart", "poststop"} {
			b.Edit(fmt.Sprintf(`hooks.%s=[{"path":%q}]`, kind, prog))
		}
		h.Want(h.Run(b), "", 0)
		if exists(b.Rootfs+"/ran") || !exists(dir+"/ran") {
			h.Errorf("the image's program was run")
		}
	})
	row(t, "CVE-2025-23267 startContainer hooks have no rights on the host", func(h *H) {
		c := h.NewCanary()
		b := h.Bundle().Edit(`hooks.startContainer=[{"path":"/bin/sh","args":["sh","-c","echo hacked >` + c.Dir + `/file; rm -rf ` + c.Dir + `; ls ` + c.Dir + ` >/seen; readlink /proc/self/exe >/exe"],"env":["PATH=/bin"]}]`)
		h.Want(h.Run(b), "", 0)
		c.Check(h)
		if data, _ := os.ReadFile(b.Rootfs + "/exe"); strings.TrimSpace(string(data)) != "/bin/busybox" {
			h.Errorf("the hook ran %q", data)
		}
	})
}

// TestPaths is about names that lead out of the runtime's own directories.
func TestPaths(t *testing.T) {
	row(t, "runc#4982 crun ids that are paths", func(h *H) {
		b := h.Bundle()
		h.Write(b)
		for _, id := range []string{"..", ".", "../x", "a/b", "/abs", "a/../b", "", "-x/../../y", "x\n", strings.Repeat("x", 2000)} {
			if r := h.Do(Cmd{Args: []string{"create", "-b", b.Dir, "--", id}}); r.Code == 0 {
				h.Errorf("id %q was accepted", id)
				h.RT("delete", "-f", "--", id)
			}
			h.RT("delete", "-f", "--", id)
		}
		h.NoLeak("the refusals")
	})
	row(t, "runc 1.5.2 crun 1.29 exec --cgroup leaves the container's cgroup", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		other := h.Bundle().Args("sleep", "60")
		other.Spec.Linux.CgroupsPath = b.Spec.Linux.CgroupsPath + "b" // the one path is a prefix of the other
		h.Up(b)
		h.Up(other)
		for _, sub := range []string{"../" + other.ID, "..", "../..", "/..", "../" + filepath.Base(other.Spec.Linux.CgroupsPath), "x/../../" + filepath.Base(other.Spec.Linux.CgroupsPath), "../../../.."} {
			r := h.RT("exec", "--cgroup", sub, b.ID, "cat", "/proc/self/cgroup")
			if r.Code != 0 {
				continue
			}
			for line := range strings.Lines(r.Stdout) {
				f := strings.SplitN(strings.TrimSpace(line), ":", 3)
				if f[1] != "" && f[2] != b.Spec.Linux.CgroupsPath && !strings.HasPrefix(f[2], b.Spec.Linux.CgroupsPath+"/") {
					h.Errorf("--cgroup %s: the process is in %s", sub, strings.TrimSpace(line))
				}
			}
		}
	})
	row(t, "CVE-2025-65105 prefixes of paths are whole names", func(h *H) {
		// /processes is not below /proc, /system is not below /sys, and their mounts are allowed.
		b := h.Bundle().Edit(mnt("/processes", "tmpfs", "t"), mnt("/system", "tmpfs", "t"), mnt("/devices", "none", h.TempDir(), "bind")).
			Sh("grep -c -E ' /(processes|system|devices) ' /proc/self/mountinfo; ls -A /devices")
		h.Want(h.Run(b), "3", 0)
	})
}
