package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func rawConfig(s string) func(*H, *Bundle) {
	return func(_ *H, b *Bundle) { b.Raw = []byte(s) }
}

// duplicate puts another member before the first one of that name.
func duplicate(member, other string) func(*H, *Bundle) {
	return func(h *H, b *Bundle) {
		h.Write(b)
		data, err := os.ReadFile(filepath.Join(b.Dir, "config.json"))
		if err != nil {
			h.Fatalf("%v", err)
		}
		b.Raw = []byte(strings.Replace(string(data), member, other+member, 1))
	}
}

var jsonCases = []Case{
	{Row: "G2 duplicate name", Setup: duplicate(`"ociVersion":`, `"ociVersion":"1.0.0",`), Err: "ociVersion"},
	{Row: "G2 duplicate name inside", Setup: duplicate(`"cwd":`, `"cwd":"/tmp",`), Err: "cwd"},
	{Row: "G3 unknown properties", Edit: []string{`foo=1`, `linux.bar={}`, `process.baz="x"`}},
	{Row: "G4 malformed JSON", Setup: rawConfig(`{"ociVersion": "1.0.0", `), Err: "config.json"},
	{Row: "G4 empty file", Setup: rawConfig(``), Err: "config.json"},
	{Row: "G4 not an object", Setup: rawConfig(`[1,2]`), Err: "*"},
	{Row: "G4 two documents", Setup: rawConfig(`{} {}`), Err: "*"},
	{Row: "G4 wrong type of args", Edit: []string{`process.args="true"`}, Err: "args"},
	{Row: "G4 wrong type of uid", Edit: []string{`process.user.uid="0"`}, Err: "uid"},
	{Row: "G4 negative uid", Edit: []string{`process.user.uid=-1`}, Err: "uid"},
	{Row: "G4 uid beyond 32 bits", Edit: []string{`process.user.uid=4294967296`}, Err: "uid"},
	{Row: "G4 uid that means unchanged", Edit: []string{`process.user.uid=4294967295`}, Err: "*"},
	{Row: "G4 wrong type of mounts", Edit: []string{`mounts={}`}, Err: "mounts"},
	{Row: "G7 null is absent", Edit: []string{`linux.seccomp=null`, `hooks=null`, `annotations=null`, `linux.devices=null`, `linux.sysctl=null`, `process.rlimits=null`}},
	{Row: "V1 no ociVersion", Edit: []string{`-ociVersion`}, Err: "ociVersion"},
	{Row: "V1 ociVersion is not a version", Edit: []string{`ociVersion="banana"`}, Err: "banana"},
	{Row: "V1 ociVersion of another major", Edit: []string{`ociVersion="2.0.0"`}, Err: "2.0.0"},
	{Row: "V1 later minor of the same major", Edit: []string{`ociVersion="1.9.0"`}},
	{Row: "V1 oldest", Edit: []string{`ociVersion="1.0.0"`}},
	{Row: "V1 development version", Edit: []string{`ociVersion="1.0.2-dev"`}},
	{Row: "V2 other platforms are ignored", Edit: []string{`solaris={"milestone":"x"}`, `windows={"layerFolders":["x"]}`, `vm={"kernel":{"path":"/k"}}`, `zos={}`, `freebsd={}`}},
	{Row: "A1 empty key", Edit: []string{`annotations={"":"x"}`}, Err: "annotation"},
	{Row: "A1 value is not a string", Edit: []string{`annotations={"a":1}`}, Err: "annotations"},
	{Row: "A1 unknown keys", Edit: []string{`annotations={"org.opencontainers.image.os":"linux","x.y":"z"}`}},
	{Row: "RO1 no root", Edit: []string{`-root`}, Err: "root"},
	{Row: "RO2 rootfs is not there", Edit: []string{`root.path="nope"`}, Err: "no such file or directory"},
	{Row: "RO2 rootfs is a file", Edit: []string{`root.path="config.json"`}, Err: "*"},
	{Row: "RO2 empty path", Edit: []string{`root.path=""`}, Err: "root"},
	{Row: "RO2 absolute", Setup: func(_ *H, b *Bundle) { b.Spec.Root.Path = b.Rootfs }},
	{Row: "RO2 symbolic link", Setup: func(h *H, b *Bundle) {
		if err := os.Symlink("rootfs", filepath.Join(b.Dir, "link")); err != nil {
			h.Fatalf("%v", err)
		}
		b.Spec.Root.Path = "link"
	}, Err: "symlink"},
	{Row: "RO2 below a symbolic link of the bundle", Setup: func(h *H, b *Bundle) {
		if err := os.Symlink("/", filepath.Join(b.Dir, "way")); err != nil {
			h.Fatalf("%v", err)
		}
		b.Spec.Root.Path = "way" + b.Rootfs
	}, Err: "symbolic links"},
	{Row: "RO3 read-only root", Edit: []string{`root.readonly=true`}, Sh: "touch /x; touch /dev/shm/y && echo sub-mount", Out: "sub-mount",
		Warn: "Read-only file system"},
	{Row: "RO4 only the container's mounts", Sh: `awk '{print $5}' /proc/self/mountinfo | grep -v -E '^/(dev|proc|sys)?(/|$)'; true`, Out: "~^$"},
	{Row: "RO4 no pivot", Flags: []string{"--no-pivot"}, Sh: "ls / | head -1", Out: "bin"},
}

func TestConfig(t *testing.T) { runCases(t, jsonCases) }

func TestBundle(t *testing.T) {
	row(t, "G1 no config.json", func(h *H) {
		d := h.TempDir()
		h.FailRT("JSON specification file config.json not found", "run", "--bundle", d, h.NewID())
		h.NoLeak("the error")
	})
	row(t, "G1 no bundle", func(h *H) {
		h.FailRT("no such file or directory", "run", "--bundle", "/nonexistent/bundle", h.NewID())
		h.NoLeak("the error")
	})
	row(t, "G1 default is the working directory", func(h *H) {
		b := h.Bundle().Args("echo", "hi")
		h.Write(b)
		h.Want(h.Do(Cmd{Dir: b.Dir, Args: []string{"run", b.ID}}), "hi", 0)
	})
	row(t, "RO5 bundle by a symbolic link and relative", func(h *H) {
		b := h.Bundle().Args("sleep", "60")
		h.Write(b)
		d := h.TempDir()
		if err := os.Symlink(b.Dir, filepath.Join(d, "lb")); err != nil {
			h.Fatalf("%v", err)
		}
		r := h.Do(Cmd{Dir: d, Args: []string{"create", "-b", "lb", b.ID}})
		h.Want(r, "", 0)
		s := h.State(b.ID)
		if s.Bundle != b.Dir {
			h.Errorf("bundle in state is %q, want %q", s.Bundle, b.Dir)
		}
	})
	row(t, "G5 state root is not left by a failed first create", func(h *H) {
		b := h.Bundle().Edit(`process.args=["/nope"]`)
		r := h.Run(b)
		if r.Code == 0 {
			h.Errorf("status 0")
		}
		h.NoLeak("the error")
	})
	row(t, "id bad ones", func(h *H) {
		b := h.Bundle()
		h.Write(b)
		// An absolute path leads to a directory of the case, never to "/": crun 1.8.1 removes the tree that an id leads to.
		kept := h.File("kept/file", "", 0o600)
		for _, id := range []string{"a/b", "../x", "..", ".", "", filepath.Dir(kept), "a b", "a\nb", "a\x01", "ü", fmt.Sprintf("%0300d", 1)} {
			r := h.Do(Cmd{Args: []string{"create", "--bundle", b.Dir, "--", id}})
			if r.Code == 0 || r.Stderr == "" {
				h.Errorf("create %q: status %d, stderr %q", id, r.Code, r.Stderr)
			}
			for _, op := range []string{"state", "start", "kill", "delete"} {
				if r := h.RT(op, "--", id); r.Code == 0 {
					h.Errorf("%s %q: status 0", op, id)
				}
			}
		}
		if _, err := os.Stat(kept); err != nil {
			h.Errorf("an id that is a path removes what is there: %v", err)
		}
		h.NoLeak("bad ids")
	})
	row(t, "id good ones", func(h *H) {
		for _, suffix := range []string{"_a", "-A", "+", ".x"} {
			b := h.Bundle()
			b.ID += suffix
			h.Want(h.Run(b), "", 0)
		}
	})
}
