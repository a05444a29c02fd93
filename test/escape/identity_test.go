package escape

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tare-oci/tare/test/internal/ocitest"
	"golang.org/x/sys/unix"
)

// showCaps prints the capability sets, one NAME=VALUE for each.
const showCaps = `grep Cap /proc/self/status | tr -d '\t' | tr ':' '='`

// sets reads what showCaps prints.
func sets(out string) map[string]string {
	m := map[string]string{}
	for _, f := range strings.Fields(out) {
		k, v, _ := strings.Cut(f, "=")
		m[k] = v
	}
	return m
}

// TestIdentity is about users, groups and capabilities.
func TestIdentity(t *testing.T) {
	row(t, "CVE-2016-3697 numeric users are numbers", func(h *H) {
		b := h.Bundle().Sh("id -u").Edit(`process.user={"uid":1000,"gid":1000}`)
		h.File(b.Rootfs+"/etc/passwd", "1000:x:0:0:root:/root:/bin/sh\nroot:x:0:0::/root:/bin/sh\n", 0o644)
		h.Want(h.Run(b), "1000", 0)
		b = h.Bundle().Args("sleep", "60")
		h.File(b.Rootfs+"/etc/passwd", "1000:x:0:0:root:/root:/bin/sh\n", 0o644)
		h.Up(b)
		h.Want(h.RT("exec", "-u", "1000", b.ID, "id", "-u"), "1000", 0)
	})
	row(t, "CVE-2026-30892 users that are not numbers", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		for _, u := range []string{"a", "1x", "4294967296", "4294967295", " 0", "-1", "1:", ":1", "a:b", "1:x", "0x0", "+0", "1:4294967296", "root"} {
			if r := h.RT("exec", "-u", u, b.ID, "id"); r.Code == 0 {
				h.Errorf("user %q was taken: %s", u, r.Stdout)
			}
		}
	})
	row(t, "CVE-2022-29162 no inheritable capabilities", func(h *H) {
		for _, u := range []string{`process.user={"uid":0,"gid":0}`, `process.user={"uid":1000,"gid":1000}`} {
			want := func(what string, r Result) {
				if s := sets(r.Stdout); r.Code != 0 || s["CapInh"] != noCaps || s["CapAmb"] != noCaps {
					h.Errorf("%s: status %d, %v %s", what, r.Code, s, r.Stderr)
				}
			}
			want("run", h.Run(h.Bundle().Sh(showCaps).Edit(u)))
			b := h.Bundle().Args("sleep", "60").Edit(u)
			h.Up(b)
			for _, flags := range []string{"", "--cap CAP_KILL", "-u 1000", "-u 1000 --cap CAP_KILL"} {
				want("exec "+flags, h.RT(append(append([]string{"exec"}, strings.Fields(flags)...), b.ID, "sh", "-c", showCaps)...))
			}
		}
	})
	row(t, "CVE-2022-29162 a file with an inheritable capability gains nothing", func(h *H) {
		b := h.Bundle().Args("/inherit/attack", "capabilities").Edit(`process.user={"uid":1000,"gid":1000}`, `process.noNewPrivileges=false`)
		inheritable(h, b)
		h.Write(b)
		up := h.Bundle().Args("sleep", "60").Edit(`process.noNewPrivileges=false`)
		inheritable(h, up)
		h.Up(up)
		for what, r := range map[string]Result{"run": h.Run(b), "exec": h.RT("exec", "-u", "1000", up.ID, "/inherit/attack", "capabilities")} {
			if s := sets(r.Stdout); r.Code != 0 || s["CapPrm"] != noCaps || s["CapEff"] != noCaps {
				h.Errorf("%s: status %d: %v %s", what, r.Code, s, r.Stderr)
			}
		}
	})
	row(t, "CVE-2023-25173 the primary group is among the groups", func(h *H) {
		b := h.Bundle().Edit(`process.user={"uid":1000,"gid":1001,"additionalGids":[1001,5]}`).Sh("grep Groups /proc/self/status | tr -s '\\t ' '  '")
		h.Want(h.Run(b), "~Groups: (1001 5|5 1001)$", 0)
	})
	row(t, "gVisor CVE-2018-19333 the first process has only the user's rights", func(h *H) {
		unprivileged := []string{`process.user={"uid":1000,"gid":1000}`, capEdit("", "", "", "", "")}
		b := h.Bundle().Edit(unprivileged...).Args("cat", "/secret")
		h.File(b.Rootfs+"/secret", "s", 0o600)
		if r := h.Run(b); r.Code != 1 || r.Stdout != "" {
			h.Errorf("status %d, output %q", r.Code, r.Stdout)
		}
		b = h.Bundle().Edit(unprivileged...).Args("/private/prog")
		h.File(b.Rootfs+"/private/prog", "#!/bin/sh\necho ran\n", 0o700)
		if r := h.Run(b); r.Code == 0 {
			h.Errorf("a program that only root may run ran as the user")
		}
		h.NoLeak("the error")
	})
	row(t, "CVE-2023-38496 CVE-2025-65105 what is asked is in force", func(h *H) {
		b := h.Bundle().Edit(`process.user={"uid":7,"gid":8,"additionalGids":[9]}`, capEdit("CAP_KILL", "", "", "", ""), `process.rlimits=[{"type":"RLIMIT_CORE","hard":0,"soft":0}]`)
		b.Sh("grep -E '^(Uid|Gid|Groups|NoNewPrivs|CapBnd|CapPrm|CapEff)' /proc/self/status | tr -s '\\t ' '  '; ulimit -c")
		h.Want(h.Run(b), "~^Uid: 7 7 7 7\nGid: 8 8 8 8\nGroups: 9 ?\nCapPrm: "+noCaps+"\nCapEff: "+noCaps+"\nCapBnd: "+killOnly+"\nNoNewPrivs: 1\n0$", 0)
	})
	row(t, "CVE-2021-43784 long strings", longStrings)
}

// inheritable makes the attacker a program with an inheritable and effective CAP_KILL in its file.
func inheritable(h *H, b *Bundle) {
	data, err := os.ReadFile(filepath.Join(b.Rootfs, "bin/probe"))
	if err != nil {
		h.Fatalf("%v", err)
	}
	prog := h.File(b.Rootfs+"/inherit/attack", string(data), 0o755)
	// struct vfs_cap_data, revision 2, with the effective bit; inheritable sets are the second words of the pairs.
	attr := []byte{1, 0, 0, 2, 0, 0, 0, 0, 1 << 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if err := unix.Setxattr(prog, "security.capability", attr, 0); err != nil {
		h.Fatalf("set file capabilities: %v", err)
	}
}

// longStrings gives the runtime strings and lists that no 16-bit length holds, up to more than it can take: it must do as it is told
// or say why not, and all namespaces must be new.
func longStrings(h *H) {
	long := strings.Repeat("x", 70000)
	args := make([]string, 3000)
	for i := range args {
		args[i] = fmt.Sprintf(`"A%d=%s"`, i, long[:1000])
	}
	var maps []string
	for i := range 300 {
		maps = append(maps, fmt.Sprintf(`{"containerID":%d,"hostID":%d,"size":1}`, i, 100000+2*i))
	}
	mappings := "[" + strings.Join(maps, ",") + "]"
	ran := 0
	for what, edits := range map[string][]string{
		"a map without its namespace":   {`linux.uidMappings=[{"containerID":0,"hostID":1,"size":1}]`},
		"environment":                   {`process.env+=["A=` + long + `"]`},
		"environment of 3 MB":           {`process.env+=[` + strings.Join(args, ",") + `]`},
		"environment of 20 MB":          {`process.env+=["A=` + strings.Repeat(long, 300) + `"]`},
		"argument of 20 MB":             {`process.args+=["` + strings.Repeat(long, 300) + `"]`},
		"annotation":                    {`annotations={"a":"` + long + `"}`},
		"hostname":                      {`hostname="` + long + `"`},
		"destination":                   {mnt("/"+long, "tmpfs", "t")},
		"destination of many names":     {mnt("/"+strings.Repeat("x/", 35000), "tmpfs", "t")},
		"source":                        {mnt("/d", "none", "/"+long, "bind")},
		"data of a mount":               {mnt("/d", "tmpfs", "t", "size="+long)},
		"cgroup":                        {`linux.cgroupsPath="/` + long + `"`},
		"path of a namespace":           {`linux.namespaces+=[{"type":"user","path":"/` + long + `"}]`},
		"masked path":                   {`linux.maskedPaths+=["/` + long + `"]`},
		"sysctl":                        {`linux.sysctl={"net.` + long + `":"1"}`},
		"300 lines of maps":             {userns, `linux.uidMappings=` + mappings, `linux.gidMappings=` + mappings},
		"user namespace, long variable": {userns, idMaps(100000, 65536), `process.env+=["A=` + long + `"]`},
	} {
		b := h.Bundle().Edit(edits...).Sh("for n in pid net ipc uts mnt user; do readlink /proc/self/ns/$n; done; [ -z $A ] || echo A=${#A}")
		r := h.Run(b)
		if r.Code >= 128 || strings.Contains(r.Stderr, "SIGSEGV") || strings.Contains(r.Stderr, "goroutine ") {
			h.Errorf("%s: a crash: status %d: %.300s", what, r.Code, r.Stderr)
		}
		if r.Code != 0 {
			if strings.TrimSpace(r.Stderr) == "" {
				h.Errorf("%s: status %d without a reason", what, r.Code)
			}
			continue
		}
		ran++
		if strings.Contains(strings.Join(edits, ""), `["A=`+long+`"]`) && !strings.Contains(r.Stdout, "A=70000") {
			h.Errorf("%s: the variable is not %d bytes long: %.300s", what, len(long), r.Stdout)
		}
		for _, n := range []string{"pid", "net", "ipc", "uts", "mnt"} {
			if id := nsID(h, "self", n); strings.Contains(r.Stdout, id) {
				h.Errorf("%s: the container is in the host's %s", what, id)
			}
		}
		if same := strings.Contains(r.Stdout, nsID(h, "self", "user")); same == strings.Contains(strings.Join(edits, ""), userns) {
			h.Errorf("%s: the container is in the host's user namespace: %v", what, same)
		}
	}
	if ran < 3 {
		h.Errorf("%d containers ran: too few were accepted to tell", ran)
	}
	h.NoLeak("long strings")
}

// TestPrivilegesOfExec is about what an exec does not say: it is the container's, never more (issue 7, A2).
func TestPrivilegesOfExec(t *testing.T) {
	const status = `grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -d '\t' | tr ':' '='`
	file := func(h *H, edit func(p *specs.Process)) string {
		p := specs.Process{Args: []string{"sh", "-c", status}, Cwd: "/", Env: []string{"PATH=/bin"}}
		if edit != nil {
			edit(&p)
		}
		j, err := json.Marshal(p)
		if err != nil {
			h.Fatalf("%v", err)
		}
		return h.File("process.json", string(j), 0o644)
	}
	within := func(h *H, what string, r Result, allowed uint64) {
		s := sets(r.Stdout)
		if r.Code != 0 || len(s) < 5 {
			h.Errorf("%s: status %d: %s %s", what, r.Code, r.Stdout, r.Stderr)
			return
		}
		for _, n := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
			if v, err := strconv.ParseUint(s[n], 16, 64); err != nil || v&^allowed != 0 {
				h.Errorf("%s: %s is %s, the container's is %x", what, n, s[n], allowed)
			}
		}
	}
	row(t, "issue7 A2 exec --process without capabilities", func(h *H) {
		b := h.Bundle().Edit(capEdit("CAP_KILL", "CAP_KILL", "CAP_KILL", "", "")).Args("sleep", "60")
		h.Up(b)
		for _, u := range []uint32{0, 1000} {
			within(h, fmt.Sprint("user ", u), h.RT("exec", "--process", file(h, func(p *specs.Process) { p.User.UID = u }), b.ID), 1<<5)
		}
		within(h, "the container's own", h.RT("exec", b.ID, "sh", "-c", status), 1<<5)
	})
	row(t, "issue7 A2 exec --process does not lift no_new_privs and the filter", func(h *H) {
		b := h.Bundle().Edit(ocitest.Seccomp("SCMP_ACT_ALLOW", ocitest.Rule("getpriority", "SCMP_ACT_ERRNO", ""))).Args("sleep", "60")
		h.Up(b)
		if s := sets(h.RT("exec", "--process", file(h, nil), b.ID).Stdout); s["NoNewPrivs"] != "1" || s["Seccomp"] != "2" {
			h.Errorf("NoNewPrivs %s, Seccomp %s, the container's are 1 and 2", s["NoNewPrivs"], s["Seccomp"])
		}
	})
	row(t, "issue7 F11 exec --process with some limits has the others of the container", func(h *H) {
		b := h.Bundle().Edit(`process.rlimits=[{"type":"RLIMIT_NPROC","hard":77,"soft":77},{"type":"RLIMIT_NOFILE","hard":99,"soft":99}]`).Args("sleep", "60")
		h.Up(b)
		h.Want(h.RT("exec", "--process", file(h, func(p *specs.Process) {
			p.Args = []string{"awk", "/Max processes|Max open files/ {print $(NF-2), $(NF-1)}", "/proc/self/limits"}
			p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 50, Hard: 50}}
		}), b.ID), "77 77\n50 50", 0)
	})
	row(t, "issue7 A2 a container without capabilities in its configuration has none", func(h *H) {
		r := h.Run(h.Bundle().Edit(`-process.capabilities`).Sh(status))
		s := sets(r.Stdout)
		if s["CapEff"] != noCaps || s["CapPrm"] != noCaps {
			h.Errorf("%v %s", s, r.Stderr)
		}
		b := h.Bundle().Edit(`-process.capabilities`).Args("sleep", "60")
		h.Up(b)
		if s := sets(h.RT("exec", b.ID, "sh", "-c", status).Stdout); s["CapEff"] != noCaps || s["CapPrm"] != noCaps {
			h.Errorf("exec: %v", s)
		}
	})
}

// TestGroupsOfRootless is about the supplementary groups of an unprivileged caller (issue 7, A3).
func TestGroupsOfRootless(t *testing.T) {
	const own, helper = `[{"containerID":0,"hostID":1000,"size":1}]`, `[{"containerID":0,"hostID":1000,"size":1},{"containerID":1,"hostID":300000,"size":65536}]`
	const foreign = `[{"containerID":0,"hostID":300000,"size":65536}]`
	for name, maps := range map[string][2]string{"helpers for both": {helper, helper}, "helper for groups": {own, helper}, "helper for users": {helper, own}, "foreign ids alone": {foreign, foreign}} {
		row(t, "issue7 A3 exec keeps no group of the host, "+name, func(h *H) {
			if _, err := exec.LookPath("newuidmap"); err != nil {
				h.T.Skip("newuidmap is not installed")
			}
			ocitest.Subordinate(h)
			const show = "grep Groups /proc/self/status | tr -s '\\t ' '  '"
			b := ocitest.Rootless(h, `linux.uidMappings=`+maps[0], `linux.gidMappings=`+maps[1]).Sh(show + "; sleep 60")
			if maps[0] == foreign {
				if out, err := cmd("chmod", "-R", "a+rwX", b.Dir); err != nil {
					h.Fatalf("chmod: %v: %s", err, out)
				}
			}
			call := func(args ...string) Result {
				c := ocitest.UserCmd(h, b, args...)
				c.Cred.Groups = []uint32{4242}
				return h.Do(c)
			}
			h.Want(ocitest.AsUser(h, b, "list", "-q"), "", 0) // gives the bundle to the user
			first := call("run", "-d", "-b", b.Dir, b.ID)
			if first.Code != 0 { // a refusal keeps the groups out too
				h.T.Logf("run: %s", first.Stderr)
				return
			}
			h.Await("the groups", func() bool { return strings.Contains(first.Again().Stdout, "Groups:") })
			groups := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(first.Again().Stdout), "Groups:"))
			r := call("exec", b.ID, "sh", "-c", show)
			got := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(r.Stdout), "Groups:"))
			if r.Code != 0 || got != groups || maps[1] != own && strings.Contains(got, "65534") {
				h.Errorf("status %d %s: groups of exec %q, of the first process %q; 65534 is a group of the host", r.Code, r.Stderr, got, groups)
			}
			call("kill", b.ID, "KILL")
			h.Await("stopped", func() bool { return strings.Contains(call("state", b.ID).Stdout, `"stopped"`) })
			h.Want(call("delete", b.ID), "", 0)
		})
	}
}

// TestSignals is about what the caller ignores and blocks (issue 7, A10).
func TestSignals(t *testing.T) {
	const show = `grep -E '^Sig(Blk|Ign)' /proc/self/status | tr -d '\t'`
	want := "SigBlk:" + noCaps + "\nSigIgn:" + noCaps
	wrap := func(*H) []string { return []string{ocitest.WorkDir() + "/probe", "deaf"} }
	row(t, "issue7 A10 signals of the caller, run", func(h *H) {
		b := h.Bundle().Sh(show)
		h.Write(b)
		h.Want(h.Do(Cmd{Args: []string{"run", "-b", b.Dir, b.ID}, Wrap: wrap(h)}), want, 0)
	})
	row(t, "issue7 A10 signals of the caller, create", func(h *H) {
		b := h.Bundle().Sh(show + "; sleep 60")
		h.Write(b)
		r := h.Do(Cmd{Args: []string{"create", "-b", b.Dir, b.ID}, Wrap: wrap(h)})
		h.Want(r, "", 0)
		h.MustRT("start", b.ID)
		h.Await("the signals", func() bool { return strings.Contains(r.Again().Stdout, "SigIgn") })
		h.Want(r.Again(), want, 0)
	})
	row(t, "issue7 A10 signals of the caller, exec", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Up(b)
		for _, flags := range [][]string{{}, {"-d"}} {
			r := h.Do(Cmd{Args: append(append([]string{"exec"}, flags...), b.ID, "sh", "-c", show), Wrap: wrap(h)})
			h.Await("the signals", func() bool { return strings.Contains(r.Again().Stdout, "SigIgn") })
			h.Want(r.Again(), want, 0)
		}
	})
	row(t, "issue7 A10 hooks have default signals too", func(h *H) {
		out := filepath.Join(h.TempDir(), "out")
		b := h.Bundle().Edit(`hooks.createRuntime=[{"path":"/bin/sh","args":["sh","-c","` + strings.ReplaceAll(show, `\`, `\\`) + ` >` + out + `"],"env":["PATH=/usr/bin:/bin"]}]`)
		h.Write(b)
		h.Want(h.Do(Cmd{Args: []string{"run", "-b", b.Dir, b.ID}, Wrap: wrap(h)}), "", 0)
		data, _ := os.ReadFile(out)
		if strings.TrimSpace(string(data)) != want {
			h.Errorf("%s", data)
		}
	})
}
