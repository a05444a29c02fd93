package rows

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"
)

// The tests of published holes in others' engines; docs/security/advisories.md lists them.

// canary is a directory of the host that nothing may reach, with a file.
func canary(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "canary")
	if err := os.Mkdir(dir, 0o751); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("secret of the host"), 0o640); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		names, err := os.ReadDir(dir)
		data, err2 := os.ReadFile(filepath.Join(dir, "secret"))
		info, err3 := os.Stat(dir)
		if err != nil || err2 != nil || err3 != nil || len(names) != 1 || string(data) != "secret of the host" || info.Mode().Perm() != 0o751 {
			t.Errorf("the host's directory has %v, %q, mode %v; %v %v %v", names, data, info, err, err2, err3)
		}
	})
	return dir
}

// links stores an image that runs, with symbolic links besides (name, target, …) and a changed configuration.
func (x tare) links(name string, change func(*v1.ImageConfig), links ...string) {
	x.Helper()
	l := newLayout(x.T)
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		x.Skipf("busybox-static is not installed: %v", err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(links); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: links[i], Linkname: links[i+1], Typeflag: tar.TypeSymlink, Mode: 0o777}); err != nil {
			x.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		x.Fatal(err)
	}
	base := tarOf(x.T, "bin/busybox", string(program), "bin/sh", string(program), "etc/passwd", "root:x:0:0::/root:/bin/sh\n")
	c := config(digest.FromBytes(base), digest.FromBytes(b.Bytes()))
	c.Config.Env = []string{"PATH=/bin"}
	change(&c.Config)
	l.entry(l.manifest(l.json(v1.MediaTypeImageConfig, c), l.blob(v1.MediaTypeImageLayer, base), l.blob(v1.MediaTypeImageLayer, b.Bytes())), "x")
	x.do("copy", l.ref("x"), "store:"+name)
}

// up is the way from a directory of a container to one of the host, whatever lies between.
func up(dir string) string { return strings.Repeat("../", 40) + strings.TrimPrefix(dir, "/") }

// TestVolumeLinksCVE_2022_23648: volumes of an image whose names lead through links to the host: none is filled from there.
func TestVolumeLinksCVE_2022_23648(t *testing.T) {
	dir := canary(t)
	for _, target := range []string{dir, up(dir), "/proc/self/root" + dir, "/proc/1/root" + dir} {
		for _, volume := range []string{"/link", "/link/", "/../link", "/link/../link"} {
			x := newTare(t)
			x.links("v:1", func(c *v1.ImageConfig) { c.Volumes = map[string]struct{}{volume: {}} }, "link", target)
			out, err := x.try("run", "--rm", "v:1", "/bin/sh", "-c", "/bin/busybox find /link/ "+dir+" -type f; /bin/busybox touch /link/made")
			if strings.Contains(out, "secret") || err != nil && (strings.Contains(err.Error(), "secret") || !strings.HasPrefix(target, "/proc/")) {
				t.Errorf("VOLUME %s, a link to %s: %s", volume, target, out)
			}
		}
	}
}

// TestWorkdirCVE_2026_55686: a working directory behind links to the host is made in the container, or not at all.
func TestWorkdirCVE_2026_55686(t *testing.T) {
	dir := canary(t)
	for _, target := range []string{dir, up(dir), "a/../" + up(dir)} {
		for _, work := range []string{"/link/BREAKOUT", "/link", "/a/../link/BREAKOUT/x", "/../link/BREAKOUT"} {
			x := newTare(t)
			x.links("w:1", func(c *v1.ImageConfig) { c.WorkingDir = work }, "link", target)
			for _, options := range [][]string{nil, {"-w", work}} {
				out, err := x.try(append(append([]string{"run", "--rm"}, options...), "w:1", "/bin/sh", "-c", "/bin/busybox ls")...)
				if err != nil || strings.Contains(out, "secret") { // it is the container's own directory of that name
					t.Errorf("WORKDIR %s, a link to %s: %s, %v", work, target, out, err)
				}
			}
		}
	}
}

// TestGeneratedFilesCVE_2022_4318: a line break in what becomes a line of a file that tare writes.
func TestGeneratedFilesCVE_2022_4318(t *testing.T) {
	x := newTare(t)
	x.links("g:1", func(c *v1.ImageConfig) {
		c.Env = append(c.Env, "HOME=/root\nevil:x:0:0::/:/bin/sh", "X=a\n192.0.2.66 evil")
	})
	for _, host := range []string{"box\n192.0.2.66 evil", "box evil", "box\tevil", "box\n"} {
		if out, err := x.try("run", "--rm", "--hostname", host, "g:1", "/bin/busybox", "cat", "/etc/hosts"); err == nil {
			t.Errorf("host name %q: %s", host, out)
		}
	}
	got := x.do("run", "--rm", "g:1", "/bin/busybox", "cat", "/etc/hosts", "/etc/passwd", "/etc/hostname")
	if strings.Contains(got, "evil") {
		t.Errorf("a variable got into a file: %s", got)
	}
}

// TestRemoveCVE_2017_1002102: what is removed with a container are its files, not what its links lead to.
func TestRemoveCVE_2017_1002102(t *testing.T) {
	dir := canary(t)
	x := newTare(t)
	x.links("r:1", func(c *v1.ImageConfig) { c.Volumes = map[string]struct{}{"/data": {}} }, "link", up(dir))
	script := fmt.Sprintf("cd /data && /bin/busybox ln -s %[1]s a && /bin/busybox ln -s %[2]s b && cd / && /bin/busybox ln -s %[1]s c && "+
		"/bin/busybox mkdir d && /bin/busybox ln -s %[2]s d/e && /bin/busybox ln -s /data/a f", dir, up(dir))
	for _, keep := range []bool{true, false} {
		if keep {
			x.do("run", "--name", "kept", "r:1", "/bin/sh", "-c", script)
			x.do("rm", "kept")
		} else {
			x.do("run", "--rm", "r:1", "/bin/sh", "-c", script)
		}
	}
	x.do("rmi", "r:1")
	x.do("prune", "-a", "-f")
	if left, err := filepath.Glob(filepath.Join(x.root, "containers/*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
