package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/image/bundle"
)

//go:embed floor.c
var floorSource []byte

// world is what all runs share: bundles, programs, and which containers are alive.
type world struct {
	o        options
	dir      string
	null     *os.File
	runtimes []*peer // tare-runtime first
	tare     string  // absolute path of tare; empty: there is none
	floor    []string
	skipped  []string // what is not measured and why
	seccomp  string   // where the profile is from
	image    string   // an image as tare names it

	faultCost time.Duration // of this machine
	perf      []string      // begins the command line of a program whose counts are wanted; nil: they are not
	count     int           // containers made so far, for their names
	alive     map[string]*peer
}

// peer is a runtime under measurement.
type peer struct {
	name, path, version string
	root                string // its state directory, on a tmpfs as /run is
}

func newWorld(o options, dir string) (*world, error) {
	w := &world{o: o, dir: dir, alive: map[string]*peer{}, faultCost: faultCost()}
	if err := w.enter(); err != nil {
		return nil, err
	}
	var err error
	if w.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return nil, err
	}
	for _, step := range []func() error{w.findPrograms, w.makeBundles, w.makeImage, w.buildFloor} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// enter makes mounts private, gives the state directories a tmpfs and takes away the cgroup2 of a hybrid layout, with which crun does
// not start. This process becomes the parent of containers' processes that create leaves behind, so that it can await their end.
func (w *world) enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make / private: %w", err)
	}
	if err := unix.Unmount("/sys/fs/cgroup/unified", 0); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount /sys/fs/cgroup/unified: %w", err)
	}
	if err := os.Chmod(w.dir, 0o755); err != nil {
		return err
	}
	state := filepath.Join(w.dir, "run")
	if err := os.Mkdir(state, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", state, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount %s: %w", state, err)
	}
	return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}

func (w *world) findPrograms() error {
	bin, err := filepath.Abs(w.o.bin)
	if err != nil {
		return err
	}
	for _, p := range []*peer{{name: "tare-runtime", path: filepath.Join(bin, "tare-runtime")}, {name: "crun", path: w.o.crun},
		{name: "runc", path: w.o.runc}} {
		if p.path, err = exec.LookPath(p.path); err != nil {
			w.skipped = append(w.skipped, p.name+": it is not installed")
			continue
		}
		out, err := exec.Command(p.path, "--version").Output()
		if err != nil {
			return fmt.Errorf("%s --version: %w (make build)", p.path, err)
		}
		line, _, _ := strings.Cut(string(out), "\n")
		p.version = strings.TrimPrefix(strings.TrimPrefix(line, p.name+" "), "version ")
		p.root = filepath.Join(w.dir, "run", p.name)
		w.runtimes = append(w.runtimes, p)
	}
	if len(w.runtimes) == 0 {
		return errors.New("no runtime is found (make build)")
	}
	w.tare = filepath.Join(bin, "tare")
	if _, err := os.Stat(w.tare); err != nil {
		w.tare = ""
		w.skipped = append(w.skipped, "tare run: bin/tare is not built")
	}
	return nil
}

// makeBundles writes bundles with one root file system: default, seccomp, with a user namespace, for a user who is not
// root, and sleep for a container that lives on.
func (w *world) makeBundles() error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("%w: install busybox-static", err)
	}
	root := filepath.Join(w.dir, "rootfs")
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), data, 0o755); err != nil {
		return err
	}
	for _, applet := range []string{"true", "sleep"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", applet)); err != nil {
			return err
		}
	}
	profile, err := w.profileJSON()
	if err != nil {
		return err
	}
	for _, b := range []struct {
		name string
		args []string
		edit func(linux map[string]any)
	}{
		{"default", []string{"/bin/true"}, nil},
		{"seccomp", []string{"/bin/true"}, func(linux map[string]any) { linux["seccomp"] = profile }},
		{"userns", []string{"/bin/true"}, func(linux map[string]any) { addUserNamespace(linux, 100000, 65536) }},
		{"rootless", []string{"/bin/true"}, rootless},
		{"sleep", []string{"/bin/sleep", "1000000"}, nil},
	} {
		if err := w.writeBundle(b.name, root, b.args, b.edit); err != nil {
			return err
		}
	}
	return nil
}

// writeBundle writes what `runc spec` writes, with a terminal less and a version that Debian's crun takes. Ambient capabilities, which
// old versions of it list without effect, are left out.
func (w *world) writeBundle(name, root string, args []string, edit func(linux map[string]any)) error {
	dir := w.bundle(name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	c := exec.Command(w.runtimes[len(w.runtimes)-1].path, "spec") // runc, if it is there
	c.Dir, c.Stderr = dir, os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s spec: %w", c.Path, err)
	}
	file := filepath.Join(dir, "config.json")
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var conf struct {
		Version  string         `json:"ociVersion"`
		Process  map[string]any `json:"process"`
		Root     map[string]any `json:"root"`
		Hostname string         `json:"hostname"`
		Mounts   []any          `json:"mounts"`
		Linux    map[string]any `json:"linux"`
	}
	if err := json.Unmarshal(data, &conf); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	conf.Version = "1.0.2"
	conf.Process["terminal"], conf.Process["args"] = false, args
	if caps, ok := conf.Process["capabilities"].(map[string]any); ok {
		delete(caps, "ambient")
	}
	conf.Root["path"] = root
	if edit != nil {
		edit(conf.Linux)
	}
	if name == "rootless" {
		conf.Mounts = rootlessMounts(conf.Mounts)
	}
	if data, err = json.MarshalIndent(conf, "", "\t"); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}

func (w *world) bundle(name string) string { return filepath.Join(w.dir, "bundle-"+name) }

// profileJSON is Docker's default profile as the container tools of the distribution have it, else our own of the same content.
func (w *world) profileJSON() (map[string]any, error) {
	caps := []string{"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"}
	const installed = "/usr/share/containers/seccomp.json"
	if data, err := os.ReadFile(installed); err == nil {
		w.seccomp = installed
		return convertProfile(data, runtime.GOARCH, caps)
	}
	w.seccomp = "image/bundle.Seccomp, as " + installed + " is missing"
	data, err := json.Marshal(bundle.Seccomp(caps))
	if err != nil {
		return nil, err
	}
	var m map[string]any
	return m, json.Unmarshal(data, &m)
}

// makeImage writes an OCI layout of the root file system for tare.
func (w *world) makeImage() error {
	var layer bytes.Buffer
	t := tar.NewWriter(&layer)
	if err := t.AddFS(os.DirFS(filepath.Join(w.dir, "rootfs"))); err != nil {
		return err
	}
	if err := t.Close(); err != nil {
		return err
	}
	dir := filepath.Join(w.dir, "image")
	if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755); err != nil {
		return err
	}
	blob := func(mediaType string, data []byte) (map[string]any, error) {
		sum := fmt.Sprintf("%x", sha256.Sum256(data))
		d := map[string]any{"mediaType": mediaType, "digest": "sha256:" + sum, "size": len(data)}
		return d, os.WriteFile(filepath.Join(dir, "blobs/sha256", sum), data, 0o644)
	}
	const oci = "application/vnd.oci.image."
	l, err := blob(oci+"layer.v1.tar", layer.Bytes())
	if err != nil {
		return err
	}
	c, err := blob(oci+"config.v1+json", fmt.Appendf(nil, `{"architecture":%q,"os":"linux","config":{"Cmd":["/bin/true"]},`+
		`"rootfs":{"type":"layers","diff_ids":[%q]}}`, runtime.GOARCH, l["digest"]))
	if err != nil {
		return err
	}
	data, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": oci + "manifest.v1+json", "config": c, "layers": []any{l}})
	if err != nil {
		return err
	}
	m, err := blob(oci+"manifest.v1+json", data)
	if err != nil {
		return err
	}
	m["annotations"] = map[string]string{"org.opencontainers.image.ref.name": "latest"}
	if data, err = json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []any{m}}); err != nil {
		return err
	}
	w.image = "oci:" + dir
	return errors.Join(os.WriteFile(filepath.Join(dir, "index.json"), data, 0o644),
		os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
}

// buildFloor compiles floor.c, or says why not.
func (w *world) buildFloor() error {
	cgroups, err := cgroupDirs()
	if err != nil {
		return err
	}
	gcc, err := exec.LookPath("gcc")
	switch {
	case err != nil:
		w.skipped = append(w.skipped, "floor: gcc is not installed")
		return nil
	case runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64":
		w.skipped = append(w.skipped, "floor: floor.c is for amd64 and arm64")
		return nil
	case len(cgroups) == 0:
		w.skipped = append(w.skipped, "floor: floor.c knows cgroup v1 only")
		return nil
	}
	source, program := filepath.Join(w.dir, "floor.c"), filepath.Join(w.dir, "floor")
	if err := os.WriteFile(source, floorSource, 0o644); err != nil {
		return err
	}
	if out, err := exec.Command(gcc, "-static", "-O2", "-o", program, source).CombinedOutput(); err != nil {
		return fmt.Errorf("compile floor.c: %w\n%s", err, out)
	}
	w.floor = append([]string{program, filepath.Join(w.dir, "rootfs"), filepath.Join(w.dir, "run")}, cgroups...)
	return nil
}

// cgroupDirs are the directories of this process in the version 1 hierarchies, where a runtime makes a container's.
func cgroupDirs() ([]string, error) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		f := strings.SplitN(line, ":", 3)
		if len(f) < 3 || f[1] == "" {
			continue
		}
		dir := filepath.Join("/sys/fs/cgroup", strings.TrimPrefix(f[1], "name="), f[2])
		if _, err := os.Stat(dir); err == nil {
			dirs = append(dirs, dir)
		}
	}
	return dirs, nil
}

// close ends the containers that are still there and reaps their processes.
func (w *world) close() {
	for id, p := range w.alive {
		if out, err := exec.Command(p.path, "--root", p.root, "delete", "--force", id).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s delete --force %s: %v\n%s", p.name, id, err, out)
		}
	}
	if w.floor != nil {
		for _, dir := range w.floor[3:] { // what a floor that ended early left
			left, _ := filepath.Glob(filepath.Join(dir, fmt.Sprintf("bench-%d-*", os.Getpid())))
			for _, d := range left {
				if err := os.Remove(d); err != nil {
					fmt.Fprintln(os.Stderr, "bench:", err)
				}
			}
		}
	}
	for {
		if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 && !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err := unix.Unmount(filepath.Join(w.dir, "run"), unix.MNT_DETACH); err != nil {
		fmt.Fprintln(os.Stderr, "bench: unmount the state directories:", err)
	}
}
