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
	"slices"
	"strings"
	"syscall"
)

// Kernel is an unpacked kernel package in .cache/vm of the repository.
type Kernel struct {
	Package string // linux-image-…
	Image   string // path of vmlinuz
	Root    string // where the package is unpacked
}

// Kernels are the packages that `make test-vm` tries, each the newest of its line: the distribution's own and, on
// Debian 12, the one of backports.
var Kernels = []string{"linux-image-cloud-amd64", "linux-image-6.12-cloud-amd64"}

// FindKernel returns the kernel of a package, or of a package that only names the newest one; "" is the
// distribution's kernel for machines in a cloud. The first time it is downloaded by apt. ErrUnavailable where that does
// not work.
func FindKernel(pkg string) (*Kernel, error) {
	if runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("%w: kernels are known for amd64 only", ErrUnavailable)
	}
	if pkg == "" {
		pkg = Kernels[0]
	}
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	real, err := resolve(pkg)
	if err != nil {
		if k := cached(cache, pkg); k != nil { // without apt, or a network
			return k, nil
		}
		return nil, err
	}
	if k := open(filepath.Join(cache, real), real); k != nil {
		return k, nil
	}
	if err := download(cache, real, pkg); err != nil {
		return nil, err
	}
	if k := open(filepath.Join(cache, real), real); k != nil {
		return k, nil
	}
	return nil, fmt.Errorf("%w: package %s holds no /boot/vmlinuz-*", ErrUnavailable, real)
}

// cacheDir is .cache/vm beside go.mod.
func cacheDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		} else if dir == "/" {
			return "", errors.New("find the repository: no go.mod above the working directory")
		}
	}
	cache := filepath.Join(dir, ".cache", "vm")
	return cache, os.MkdirAll(cache, 0o755)
}

// resolve follows a package that only depends on the newest kernel.
func resolve(pkg string) (string, error) {
	out, err := exec.Command("apt-cache", "depends", pkg).Output()
	if err != nil {
		return "", fmt.Errorf("%w: apt-cache depends %s: %w", ErrUnavailable, pkg, err)
	}
	for line := range strings.Lines(string(out)) {
		if dep, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: linux-image-"); ok {
			return "linux-image-" + dep, nil
		}
	}
	return pkg, nil
}

// cached finds what an earlier download left for pkg.
func cached(cache, pkg string) *Kernel {
	real, err := os.Readlink(filepath.Join(cache, pkg))
	if err != nil {
		real = pkg
	}
	return open(filepath.Join(cache, real), real)
}

func open(root, pkg string) *Kernel {
	images, _ := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if len(images) == 0 {
		return nil
	}
	return &Kernel{Package: pkg, Image: images[0], Root: root}
}

// download takes a package into the cache. Several test binaries may do so at once: the last rename finds the work done.
func download(cache, real, pkg string) error {
	tmp, err := os.MkdirTemp(cache, "download-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	get := exec.Command("apt-get", "download", real)
	get.Dir = tmp
	if out, err := get.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: apt-get download %s: %w: %s", ErrUnavailable, real, err, bytes.TrimSpace(out))
	}
	debs, _ := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if len(debs) != 1 {
		return fmt.Errorf("%w: apt-get download %s left %d packages", ErrUnavailable, real, len(debs))
	}
	if out, err := exec.Command("dpkg-deb", "-x", debs[0], filepath.Join(tmp, "root")).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: dpkg-deb -x %s: %w: %s", ErrUnavailable, debs[0], err, bytes.TrimSpace(out))
	}
	if err := os.Rename(filepath.Join(tmp, "root"), filepath.Join(cache, real)); err != nil && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if pkg != real {
		_ = os.Remove(filepath.Join(cache, pkg))
		_ = os.Symlink(real, filepath.Join(cache, pkg)) // only a shortcut for a later run without apt
	}
	return nil
}

// modules finds kernel modules with what they depend on, in the order of loading. Modules that are built in, by
// modules.builtin, need no file.
func (k *Kernel) modules(names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	files := map[string]string{}
	builtin := ""
	err := filepath.WalkDir(filepath.Join(k.Root, "lib", "modules"), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name, _, ok := strings.Cut(d.Name(), ".ko"); ok && d.Type().IsRegular() {
			files[moduleName(name)] = p
		} else if d.Name() == "modules.builtin" {
			b, err := os.ReadFile(p)
			builtin = strings.ReplaceAll(string(b), "-", "_")
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var order []string
	var visit func(string) error
	visit = func(name string) error {
		name = moduleName(name)
		file, ok := files[name]
		switch {
		case strings.Contains(builtin, "/"+name+".ko"):
			return nil
		case !ok:
			return fmt.Errorf("%w: kernel module %s is not in %s", ErrUnavailable, name, k.Package)
		case slices.Contains(order, strings.TrimSuffix(file, ".xz")):
			return nil
		}
		file, err := unpacked(file)
		if err != nil {
			return err
		}
		deps, err := dependencies(file)
		if err != nil {
			return err
		}
		for _, d := range deps {
			if err := visit(d); err != nil {
				return err
			}
		}
		order = append(order, file)
		return nil
	}
	for _, n := range names {
		if err := visit(n); err != nil {
			return nil, err
		}
	}
	return order, nil
}

func moduleName(s string) string { return strings.ReplaceAll(s, "-", "_") }

// dependencies reads "depends=a,b" from a module's .modinfo section, whose strings are plain bytes of the file.
func dependencies(file string) ([]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	_, rest, ok := bytes.Cut(b, []byte("\x00depends="))
	value, _, _ := bytes.Cut(rest, []byte{0})
	if !ok || len(value) == 0 {
		return nil, nil
	}
	return strings.Split(string(value), ","), nil
}

// unpacked gives the plain form of a module that is compressed with xz, beside it.
func unpacked(file string) (string, error) {
	plain, packed := strings.CutSuffix(file, ".xz")
	if !packed || fileExists(plain) {
		return plain, nil
	}
	b, err := exec.Command("xz", "-dc", file).Output()
	if err != nil {
		return "", fmt.Errorf("%w: xz -dc %s: %w", ErrUnavailable, file, err)
	}
	f, err := os.CreateTemp(filepath.Dir(plain), "new-")
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	return plain, os.Rename(f.Name(), plain)
}

func fileExists(path string) bool { _, err := os.Stat(path); return err == nil }
