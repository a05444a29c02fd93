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
)

// Kernel is an unpacked kernel package in .cache/vm of the repository.
type Kernel struct {
	Package string // linux-image-…
	Image   string // path of vmlinuz
	Root    string // where the package is unpacked
	Arch    string // GOARCH of its programs
}

// Kernels are those that `make test-vm` tries, by the name of the tests: the release's own, the newest of its
// backports, and the release's own on another architecture. They are kernels for virtual machines ("cloud").
var Kernels = map[string]Package{
	"release":   {Name: "linux-image-cloud-amd64"},
	"backports": {Name: "linux-image-cloud-amd64", Backports: true},
	"arm64":     {Name: "linux-image-cloud-arm64", Arch: "arm64"},
}

// FindKernel returns the kernel of a package, or of a package that only names the newest one. The first time it is
// downloaded by apt. ErrUnavailable where that does not work.
func FindKernel(p Package) (*Kernel, error) {
	if runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("%w: machines are known for hosts of amd64 only", ErrUnavailable)
	}
	dir, err := p.fetch()
	if err != nil {
		return nil, err
	}
	images, _ := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if len(images) == 0 {
		return nil, fmt.Errorf("%w: package %s holds no /boot/vmlinuz-*", ErrUnavailable, p)
	}
	arch := p.Arch
	if arch == "" {
		arch = runtime.GOARCH
	}
	return &Kernel{Package: filepath.Base(dir), Image: images[0], Root: dir, Arch: arch}, nil
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
