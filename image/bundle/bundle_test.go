package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
)

const passwd = `root:x:0:0:root:/root:/bin/sh
# a comment
1000:x:0:0:named like a number:/root:/bin/sh
99999999999:x:0:0::/root:/bin/sh
app:x:1001:2001:App:/home/app:/bin/sh
broken:x:abc:1::/:/bin/sh
huge:x:4294967296:1::/:/bin/sh
nogroup:x:1002
app:x:0:0:second:/root:/bin/sh
-1:x:0:0::/:
+5:x:7:7::/five:
`

const group = `root:x:0:root
app:x:2001:
wheel:x:10:other,app,third
audio:x:29:app
2500:x:0:
staff:x:50:
bad:x:x:
`

func rootfs(t testing.TB, files map[string]string) *os.File {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch kind, arg, _ := strings.Cut(content, ":"); kind {
		case "LINK":
			err = os.Symlink(arg, path)
		case "FIFO":
			err = syscall.Mkfifo(path, 0o644)
		case "DEVICE":
			err = syscall.Mknod(path, syscall.S_IFCHR|0o644, 1<<8|5)
		case "SPARSE":
			if err = os.WriteFile(path, []byte(arg), 0o644); err == nil {
				err = os.Truncate(path, 20<<30)
			}
		default:
			err = os.WriteFile(path, []byte(content), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestUser(t *testing.T) {
	root := rootfs(t, map[string]string{"etc/passwd": passwd, "etc/group": group})
	for _, c := range []struct{ spec, want, home string }{
		{"", "0:0 [0]", "/root"},
		{"root", "0:0 [0]", "/root"},
		{"app", "1001:2001 [10 29 2001]", "/home/app"},
		{"app:staff", "1001:50 [50]", "/home/app"},
		{"app:77", "1001:77 [77]", "/home/app"},
		{"app:", "1001:2001 [10 29 2001]", "/home/app"},
		{"1001", "1001:2001 [10 29 2001]", "/home/app"},
		{"1001:staff", "1001:50 [50]", "/home/app"},
		{"1001:0", "1001:0 [0]", "/home/app"},
		{"1000", "1000:0 [0]", "/"}, // not the user named 1000 (CVE-2016-3697)
		{"app:2500", "1001:2500 [2500]", "/home/app"},
		{"4294967294:4294967294", "4294967294:4294967294 [4294967294]", "/"},
		{"007", "7:7 [7]", "/five"},
		{"+5", "7:7 [7]", "/five"}, // a name
		{"4294967295", "error: out of range", ""},
		{"4294967296", "error: out of range", ""},
		{"99999999999", "error: out of range", ""}, // not the name either (CVE-2026-46680)
		{"1:4294967295", "error: out of range", ""},
		{"none", "error: not in the image's /etc/passwd", ""},
		{"app:none", "error: not in the image's /etc/group", ""},
		{"1x", "error: not in the image's /etc/passwd", ""},
		{" 0", "error: not in the image's /etc/passwd", ""},
		{"0 ", "error: not in the image's /etc/passwd", ""},
		{"app\n", "error: not in the image's /etc/passwd", ""},
		{":1", "error: not USER or USER:GROUP", ""},
		{":", "error: not USER or USER:GROUP", ""},
		{"a:b:c", "error: not USER or USER:GROUP", ""},
		{"broken", `error: numbers "abc"`, ""},
		{"huge", "error: 4294967296", ""},
		{"nogroup", "error: not in the image's /etc/passwd", ""},
		{"app:bad", `error: number "x"`, ""},
	} {
		u, home, err := lookupUser(root, c.spec)
		got := fmt.Sprintf("%d:%d %v", u.UID, u.GID, u.AdditionalGids)
		if want, ok := strings.CutPrefix(c.want, "error: "); ok {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %s, %v, not error %q", c.spec, got, err, want)
			}
		} else if err != nil || got != c.want || home != c.home {
			t.Errorf("%q: %s home %s, %v, not %s home %s", c.spec, got, home, err, c.want, c.home)
		}
	}
}

// TestDatabases reads passwd files that are not what they seem; none may block, or be read where it leads outside.
func TestDatabases(t *testing.T) {
	members := strings.Repeat("m,", 1<<20)
	for _, c := range []struct {
		name  string
		files map[string]string
		user  string
		want  string
	}{
		{"missing, number", nil, "5", "5:0 [0]"},
		{"missing, name", nil, "app", "error: not in the image's"},
		{"missing, root by default", nil, "", "0:0 [0]"},
		{"absolute link inside", map[string]string{"etc/passwd": "LINK:/real/passwd", "real/passwd": passwd}, "app", "1001:2001 [2001]"},
		{"directory link inside", map[string]string{"etc": "LINK:/usr/etc", "usr/etc/passwd": passwd}, "app", "1001:2001 [2001]"},
		{"link outside", map[string]string{"etc/passwd": "LINK:/../../../../../../../../etc/passwd"}, "daemon", "error: "},
		{"link to a host file", map[string]string{"etc/passwd": "LINK:/proc/self/environ"}, "daemon", "error: "},
		{"fifo", map[string]string{"etc/passwd": "FIFO:"}, "app", "error: open the image's /etc/passwd"},
		{"group is a fifo", map[string]string{"etc/passwd": passwd, "etc/group": "FIFO:"}, "app", "error: open the image's /etc/group"},
		{"link to a fifo", map[string]string{"etc/passwd": "LINK:/f", "f": "FIFO:"}, "app", "error: open the image's /etc/passwd"},
		{"device", map[string]string{"etc/passwd": "DEVICE:"}, "app", "error: open the image's /etc/passwd"},
		{"directory", map[string]string{"etc/passwd/x": ""}, "app", "error: open the image's /etc/passwd"},
		{"link loop", map[string]string{"etc/passwd": "LINK:passwd"}, "app", "error: too many levels"},
		{"20 GB", map[string]string{"etc/passwd": "SPARSE:" + passwd}, "none", "error: at most"},
		{"many lines", map[string]string{"etc/passwd": strings.Repeat("x:x:1:1::/:\n", 2<<20)}, "none", "error: larger than"},
		{"long line", map[string]string{"etc/passwd": passwd, "etc/group": "g:x:5:" + members}, "app", "error: lines of at most"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := rootfs(t, c.files)
			start := time.Now()
			u, _, err := lookupUser(root, c.user)
			got := fmt.Sprintf("%d:%d %v", u.UID, u.GID, u.AdditionalGids)
			if want, ok := strings.CutPrefix(c.want, "error: "); ok {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s, %v, not error %q", got, err, want)
				}
			} else if err != nil || got != c.want {
				t.Errorf("%s, %v, not %s", got, err, c.want)
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func image(c v1.ImageConfig) v1.Image {
	return v1.Image{Platform: v1.Platform{OS: "linux", Architecture: "amd64"}, Config: c}
}

func TestArguments(t *testing.T) {
	plain := rootfs(t, nil)
	for _, c := range []struct {
		entrypoint, cmd, newEntrypoint, args []string
		root                                 *os.File
		want                                 string
	}{
		{[]string{"e", "1"}, []string{"c"}, nil, nil, plain, "e 1 c"},
		{[]string{"e"}, nil, nil, nil, plain, "e"},
		{nil, []string{"c", "2"}, nil, nil, plain, "c 2"},
		{[]string{"e"}, []string{"c"}, nil, []string{"a"}, plain, "e a"},
		{[]string{"e"}, []string{"c"}, []string{"n"}, nil, plain, "n"},
		{[]string{"e"}, []string{"c"}, []string{"n"}, []string{"a"}, plain, "n a"},
		{[]string{"e"}, []string{"c"}, []string{}, []string{"a"}, plain, "a"},
		{nil, nil, nil, nil, plain, "error: no command"},
		{[]string{"e"}, []string{"c"}, []string{}, nil, plain, "error: no command"},
		{nil, nil, nil, nil, rootfs(t, map[string]string{"sbin/init": "x"}), "/sbin/init"},
		{nil, nil, nil, nil, rootfs(t, map[string]string{"usr/sbin/init": "x"}), "/usr/sbin/init"},
		{nil, nil, nil, nil, rootfs(t, map[string]string{"sbin/init": "LINK:/lib/systemd", "lib/systemd": "x"}), "/sbin/init"},
		{nil, nil, nil, nil, rootfs(t, map[string]string{"sbin/init": "LINK:/bin/sh"}), "error: no command"}, // not the host's
		{nil, nil, nil, nil, rootfs(t, map[string]string{"sbin/init/x": ""}), "error: no command"},
		{nil, []string{"c\x00"}, nil, nil, plain, "error: zero byte"},
	} {
		s, err := Spec(Input{Image: image(v1.ImageConfig{Entrypoint: c.entrypoint, Cmd: c.cmd}), Root: c.root, Entrypoint: c.newEntrypoint, Args: c.args})
		if want, ok := strings.CutPrefix(c.want, "error: "); ok {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: error %v", c, err)
			}
		} else if err != nil || strings.Join(s.Process.Args, " ") != c.want {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("SECRET", "of the host")
	got, err := environment([]string{"PATH=/x", "SECRET", "*", "=x", "A=1", "A=2", "B=a b=c"}, []string{"B=new", "C="}, "/root")
	want := []string{"PATH=/x", "A=1", "A=2", "B=new", "C=", "HOME=/root"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	if got, _ := environment(nil, nil, "/"); !slices.Equal(got, []string{defaultPath, "HOME=/"}) {
		t.Errorf("%q", got)
	}
	for _, bad := range []string{"SECRET", "", "=x"} {
		if _, err := environment(nil, []string{bad}, "/"); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

func TestVolumes(t *testing.T) {
	set := func(names ...string) v1.Image {
		m := map[string]struct{}{}
		for _, n := range names {
			m[n] = struct{}{}
		}
		return image(v1.ImageConfig{Volumes: m})
	}
	got, err := Volumes(set("/data", "/data/", "var/../b", "/../../etc", "/dev/shm", "/sys/fs/cgroup", "/procfs"))
	if err != nil || !slices.Equal(got, []string{"/b", "/data", "/dev/shm", "/etc", "/procfs"}) {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"", "/", "/proc", "/proc/self/attr", "/sys", "/x/../proc", "/dev", "a\x00"} {
		if _, err := Volumes(set(bad)); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

// TestImageHasNoSay checks that labels which are orders to some runtime, and fields that are not the image's, change nothing.
func TestImageHasNoSay(t *testing.T) {
	root := rootfs(t, nil)
	base := v1.ImageConfig{Cmd: []string{"x"}}
	plain, err := Spec(Input{Image: image(base), Root: root})
	if err != nil {
		t.Fatal(err)
	}
	base.Labels = map[string]string{
		"org.systemd.property.ExecStart": "x", "run.oci.handler": "krun", "org.criu.config": "x", "io.podman.annotations.checkpoint": "x",
		"module.wasm.image/variant": "compat", "cdi.k8s.io/x": "y", "": "z",
	}
	base.Volumes = map[string]struct{}{"/data": {}}
	steered, err := Spec(Input{Image: image(base), Root: root})
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(plain)
	b, _ := json.Marshal(steered)
	if string(a) != string(b) {
		t.Errorf("%s\n%s", a, b)
	}
}

func TestCapabilitiesOfUsers(t *testing.T) {
	root := rootfs(t, nil)
	for user, want := range map[string]int{"0": len(capabilities), "1": 0} {
		s, err := Spec(Input{Image: image(v1.ImageConfig{Cmd: []string{"x"}, User: user}), Root: root})
		if err != nil {
			t.Fatal(err)
		}
		c := s.Process.Capabilities
		if len(c.Effective) != want || len(c.Permitted) != want || len(c.Inheritable)+len(c.Ambient) != 0 || len(c.Bounding) != len(capabilities) {
			t.Errorf("user %s: %+v", user, c)
		}
	}
}

// TestAgainstUmoci converts one image with umoci and here and compares what conversion.md rules on.
func TestAgainstUmoci(t *testing.T) {
	umoci, err := exec.LookPath("umoci")
	if err != nil {
		t.Skip("umoci is not installed")
	}
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(umoci, args...).CombinedOutput(); err != nil {
			t.Fatalf("umoci %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	ref := filepath.Join(dir, "l") + ":t"
	run("init", "--layout", filepath.Join(dir, "l"))
	run("new", "--image", ref)
	tree := rootfs(t, map[string]string{"etc/passwd": passwd, "etc/group": group}).Name()
	run("insert", "--image", ref, tree, "/")
	for _, user := range []string{"app", "1001", "app:staff", "1001:50", "app:50", "1001:staff", "1000", ""} {
		run("config", "--image", ref, "--config.user", user, "--config.entrypoint", "/bin/e", "--config.entrypoint", "x y", "--config.cmd", "c",
			"--config.env", "A=1", "--config.env", "PATH=/p", "--config.workingdir", "/w", "--config.label", "org.opencontainers.image.author=label",
			"--config.label", "k=v", "--config.exposedports", "80/tcp", "--config.exposedports", "53/udp", "--config.stopsignal", "SIGQUIT",
			"--author", "me", "--created", "2020-01-02T03:04:05Z", "--os", "linux", "--architecture", "amd64")
		out := filepath.Join(dir, "b"+user)
		run("unpack", "--image", ref, out)
		var want specs.Spec
		readJSON(t, filepath.Join(out, "config.json"), &want)
		root, err := os.Open(filepath.Join(out, "rootfs"))
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		got, err := Spec(Input{Image: umociConfig(t, filepath.Join(dir, "l")), Root: root})
		if err != nil {
			t.Fatal(err)
		}
		compare(t, user, got, &want)
	}
}

func compare(t *testing.T, user string, got, want *specs.Spec) {
	t.Helper()
	g, w := got.Process, want.Process
	if !slices.Equal(g.Args, w.Args) || g.Cwd != w.Cwd {
		t.Errorf("user %q: %q in %s, umoci %q in %s", user, g.Args, g.Cwd, w.Args, w.Cwd)
	}
	for _, v := range w.Env {
		if !slices.Contains(g.Env, v) && !strings.HasPrefix(v, "TERM=") {
			t.Errorf("user %q: env %q, umoci %q", user, g.Env, w.Env)
		}
	}
	groups := append(slices.Clone(w.User.AdditionalGids), w.User.GID) // ours always have the primary group
	slices.Sort(groups)
	if g.User.UID != w.User.UID || g.User.GID != w.User.GID || !slices.Equal(g.User.AdditionalGids, slices.Compact(groups)) {
		t.Errorf("user %q: %+v, umoci %+v", user, g.User, w.User)
	}
	for k, v := range want.Annotations {
		if k == "org.opencontainers.image.exposedPorts" {
			continue // a list in no particular order
		}
		if k == "org.opencontainers.image.author" {
			v = "label" // conversion.md lets the explicit label win; umoci does not
		}
		if v != "" && got.Annotations[k] != v {
			t.Errorf("annotation %s: %q, umoci %q", k, got.Annotations[k], v)
		}
	}
	for k := range got.Annotations {
		if _, ok := want.Annotations[k]; !ok {
			t.Errorf("annotation %s is not umoci's: %q", k, got.Annotations[k])
		}
	}
}

func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// umociConfig reads the configuration of a layout's only image.
func umociConfig(t *testing.T, layout string) (image v1.Image) {
	t.Helper()
	var index v1.Index
	readJSON(t, filepath.Join(layout, "index.json"), &index)
	var manifest v1.Manifest
	readJSON(t, filepath.Join(layout, "blobs/sha256", index.Manifests[0].Digest.Encoded()), &manifest)
	readJSON(t, filepath.Join(layout, "blobs/sha256", manifest.Config.Digest.Encoded()), &image)
	return image
}

// TestRun runs the default configuration, profile included, on the runtime that Debian has.
func TestRun(t *testing.T) {
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("runc is not installed")
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skip("busybox is not installed")
	}
	root := rootfs(t, map[string]string{"bundle/rootfs/bin/busybox": string(busybox)})
	dir := filepath.Join(root.Name(), "bundle")
	rootfs, err := os.Open(filepath.Join(dir, "rootfs"))
	if err != nil {
		t.Fatal(err)
	}
	defer rootfs.Close()
	s, err := Spec(Input{Image: image(v1.ImageConfig{Cmd: []string{"/bin/busybox", "sh", "-c", "busybox id; busybox grep Seccomp: /proc/self/status"}}), Root: rootfs})
	if err == nil {
		err = Write(dir, s)
	}
	if err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("bundle-test-%d", os.Getpid())
	cmd := exec.Command(runc, "--root", t.TempDir(), "run", "--bundle", dir, id)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if got := string(out); got != "uid=0 gid=0 groups=0\nSeccomp:\t2\n" {
		t.Errorf("%v: %s", err, got)
	}
}
