package engine

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tare-oci/tare/internal/sys/pty"
)

// debianArchives returns images of a Debian (or Ubuntu) minbase as podman saves them, by form. They are made once and kept
// in .cache, since debootstrap takes minutes.
func debianArchives(t *testing.T) map[string]string {
	t.Helper()
	cache, err := filepath.Abs("../../.cache")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(cache, "minbase-"+codename())
	forms := map[string]string{"docker-archive": base + ".docker.tar", "oci-archive": base + ".oci.tar"}
	for form, path := range forms {
		if _, err := os.Stat(path); err == nil {
			continue
		}
		minbase(t, base+".tar")
		podmanSave(t, base+".tar", form, path)
	}
	return forms
}

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

// minbase makes the archive of a root file system unless it is there.
func minbase(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat(path); err == nil {
		return
	}
	for _, tool := range []string{"debootstrap", "podman"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	dir := filepath.Join(t.TempDir(), "minbase")
	if out, err := exec.Command("debootstrap", "--variant=minbase", codename(), dir).CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		t.Skipf("debootstrap cannot fetch packages (no network?): %v: %s", err, lines[len(lines)-1])
	}
	must(t, "tar", "-C", dir, "--numeric-owner", "-cf", path+".part", ".")
	if err := os.Rename(path+".part", path); err != nil {
		t.Fatal(err)
	}
}

// podmanSave imports the root file system into a store of its own and saves it as an image.
func podmanSave(t *testing.T, rootfs, form, path string) {
	t.Helper()
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("podman is not installed")
	}
	d := t.TempDir()
	podman := func(args ...string) {
		t.Helper()
		must(t, "podman", append([]string{"--storage-driver", "vfs", "--root", d + "/store", "--runroot", d + "/run", "--tmpdir", d + "/tmp"}, args...)...)
	}
	podman("import", "-q", "--change", "CMD=/bin/bash", rootfs, "localhost/minbase:latest")
	podman("save", "-q", "--format", form, "-o", path+".part", "localhost/minbase:latest")
	podman("rmi", "-f", "localhost/minbase:latest")
	if err := os.Rename(path+".part", path); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// The main job: a real distribution, saved by another tool in both forms, runs a program and a shell on a terminal.
func TestDebian(t *testing.T) {
	archives := debianArchives(t)
	s := newStore(t)
	for form, path := range archives {
		image := form + ":" + path
		r := s.do("run", "--rm", image, "apt-get", "--version").result()
		if !strings.HasPrefix(r.out, "apt ") || r.code != 0 {
			t.Errorf("%s: apt-get --version: %+v", form, r)
		}
		r = s.do("run", "--rm", "--memory", "256m", "--pids-limit", "50", "-e", "DEBIAN_FRONTEND=noninteractive", image, "sh", "-c",
			"dpkg --audit; dpkg -l | grep -c ^ii; id -un; perl -e 'print \"perl\\n\"'; ls -l /usr/bin/passwd | cut -c1-10").result()
		if !strings.HasSuffix(r.out, "\nroot\nperl\n-rwsr-xr-x\n") || r.code != 0 {
			t.Errorf("%s: %+v", form, r)
		}
		c := s.do("run", "--rm", "-it", "-e", "PS1=ready>", image, "bash", "--norc")
		term := onTerminal(t, c, pty.Size{Rows: 30, Cols: 90})
		term.expect("ready>")
		term.enter("stty size; tty; echo $((6*7))\r")
		term.expect("30 90\r\n")
		term.expect("/dev/pts/0\r\n42\r\n")
		term.enter("exit 3\r")
		if r := c.wait(); r.code != 3 {
			t.Errorf("%s: the shell: %+v, the terminal shows %q", form, r, term.shows())
		}
	}
	if found, _ := filepath.Glob(filepath.Join(s.root, "layers/sha256/*")); len(found) != 1 {
		t.Errorf("the same layer in both archives is unpacked as %v", found)
	}
	s.empty()
}
