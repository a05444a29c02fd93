package vm

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Package is a package of the host's distribution, for an architecture and a release that need not be the host's.
type Package struct {
	Name      string
	Backports bool   // from the backports of the host's release
	Arch      string // "": the host's
}

func (p Package) String() string {
	s := p.Name
	if p.Arch != "" {
		s += ":" + p.Arch
	}
	if p.Backports {
		s += "/backports"
	}
	return s
}

// fetch returns a directory of the cache in which the package is unpacked, the newest one of a package that only names
// it. Without a network it is what an earlier call has left. ErrUnavailable where there is none.
func (p Package) fetch() (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	last := filepath.Join(cache, strings.NewReplacer(":", "-", "/", "-").Replace(p.String()))
	dir, err := p.download(&archives{dir: filepath.Join(cache, "apt")}, cache)
	if err != nil {
		if name, linkErr := os.Readlink(last); linkErr == nil && fileExists(filepath.Join(cache, name)) {
			return filepath.Join(cache, name), nil
		}
		return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	_ = os.Remove(last)
	_ = os.Symlink(filepath.Base(dir), last) // only a shortcut for a later call without a network
	return dir, nil
}

// download unpacks the package below cache, once.
func (p Package) download(a *archives, cache string) (string, error) {
	if err := a.prepare(); err != nil {
		return "", err
	}
	name, err := a.resolve(p)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, strings.ReplaceAll(name, ":", "-"))
	if fileExists(dir) {
		return dir, nil
	}
	tmp, err := os.MkdirTemp(cache, "download-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if _, err := a.run(tmp, "apt-get", "-q", "download", name+a.release(p)); err != nil {
		return "", err
	}
	debs, _ := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if len(debs) != 1 {
		return "", fmt.Errorf("apt-get download %s left %d packages", name, len(debs))
	}
	if _, err := a.run(tmp, "dpkg-deb", "-x", debs[0], "root"); err != nil {
		return "", err
	}
	if err := os.Rename(filepath.Join(tmp, "root"), dir); err != nil && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return dir, nil
}

// archives is a configuration of apt with lists of its own: those of the host's release and of its backports, for amd64
// and arm64. The host's own apt and dpkg stay as they are.
type archives struct {
	dir      string
	codename string
}

const aptConf = `Dir::State "%[1]s/state";
Dir::State::status "%[1]s/status";
Dir::Cache "%[1]s/cache";
Dir::Etc::sourcelist "%[1]s/sources.list";
Dir::Etc::sourceparts "%[1]s/none";
APT::Architecture "%[2]s";
APT::Architectures { "amd64"; "arm64"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
`

// prepare writes the configuration and brings the lists up to date once a day.
func (a *archives) prepare() error {
	uri, err := a.mirror()
	if err != nil {
		return err
	}
	for _, d := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.dir, d), 0o755); err != nil {
			return err
		}
	}
	sources := fmt.Sprintf("deb %s %[2]s main\ndeb %[1]s %[2]s-backports main\n", uri, a.codename)
	for name, text := range map[string]string{"apt.conf": fmt.Sprintf(aptConf, a.dir, runtime.GOARCH), "sources.list": sources, "status": ""} {
		if err := os.WriteFile(filepath.Join(a.dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	stamp := filepath.Join(a.dir, "updated")
	if st, err := os.Stat(stamp); err == nil && time.Since(st.ModTime()) < 24*time.Hour {
		return nil
	}
	if _, err := a.run(a.dir, "apt-get", "-q", "update", "-o", "APT::Update::Error-Mode=any"); err != nil {
		return err
	}
	return os.WriteFile(stamp, nil, 0o644)
}

// mirror returns where the host gets its packages from, and notes the release.
func (a *archives) mirror() (string, error) {
	a.codename = codename()
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Created-By: Packages").Output()
	if err != nil {
		return "", fmt.Errorf("apt-get indextargets: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 3 && f[1] == a.codename && f[2] == "main" {
			return f[0], nil
		}
	}
	return "", fmt.Errorf("apt has no package lists of %s", a.codename)
}

// release is the suffix by which apt takes the package from its release.
func (a *archives) release(p Package) string {
	if p.Backports {
		return "/" + a.codename + "-backports"
	}
	return "/" + a.codename
}

// resolve follows a package that only depends on the newest kernel.
func (a *archives) resolve(p Package) (string, error) {
	name := p.Name
	if p.Arch != "" {
		name += ":" + p.Arch
	}
	out, err := a.run(a.dir, "apt-cache", "depends", name+a.release(p))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(out)) {
		if dep, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: linux-image-"); ok {
			return "linux-image-" + dep, nil
		}
	}
	return name, nil
}

// run executes a program of apt with this configuration.
func (a *archives) run(dir string, argv ...string) ([]byte, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "APT_CONFIG="+filepath.Join(a.dir, "apt.conf"), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}
