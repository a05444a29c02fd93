package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"
)

const rowPull = "pull"

// decompressArg makes this program the floor: it decompresses the files that follow on as many processors as there are.
const decompressArg = "-decompress"

func decompressMain(files []string) int {
	var wg sync.WaitGroup
	var failed atomic.Bool
	for _, name := range files {
		wg.Go(func() {
			f, err := os.Open(name)
			if err == nil {
				var z *gzip.Reader
				if z, err = gzip.NewReader(f); err == nil {
					_, err = io.Copy(io.Discard, z)
				}
				f.Close()
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				failed.Store(true)
			}
		})
	}
	wg.Wait()
	if failed.Load() {
		return 1
	}
	return 0
}

// pulls measures the pull into a cold store until the image can run.
func (w *world) pulls(ctx context.Context) error {
	var err error
	if w.image, err = loadImage(ctx, w.o.cache, w.o.mib); err != nil {
		return err
	}
	address, _, err := w.registry(ctx)
	if err != nil {
		return err
	}
	if err := w.image.push(ctx, address); err != nil {
		return fmt.Errorf("fill the registry: %w", err)
	}
	ref := address + "/bench:1"
	actions := []action{w.tarePull(ctx, ref)}
	for _, p := range []struct {
		tools []string
		make  func(context.Context, string) action
	}{{[]string{"skopeo", "umoci"}, w.skopeoPull}, {[]string{"podman"}, w.podmanPull}, {[]string{"containerd", "ctr"}, w.ctrPull}} {
		missing := ""
		for _, t := range p.tools {
			if _, err := exec.LookPath(t); err != nil {
				missing = t
			}
		}
		if missing != "" {
			w.skipped = append(w.skipped, "pull by "+p.tools[0]+": "+missing+" is not there")
			continue
		}
		actions = append(actions, p.make(ctx, ref))
	}
	floor, err := w.floors(ctx, ref)
	if err != nil {
		return err
	}
	return w.interleave(ctx, append(actions, floor...))
}

func (w *world) tarePull(ctx context.Context, ref string) action {
	return w.onDisk(ctx, "tare", func(dir string) (float64, error) {
		return run(ctx, nil, filepath.Join(w.o.bin, "tare"), "pull", "--root", dir+"/tare", "--quiet", ref)
	}, nil)
}

func (w *world) skopeoPull(ctx context.Context, ref string) action {
	return w.onDisk(ctx, "skopeo + umoci", func(dir string) (float64, error) {
		a, err := run(ctx, nil, "skopeo", "copy", "--quiet", "--src-tls-verify=false", "docker://"+ref, "oci:"+dir+"/image:1")
		if err != nil {
			return 0, err
		}
		b, err := run(ctx, nil, "umoci", "unpack", "--image", dir+"/image:1", dir+"/bundle")
		return a + b, err
	}, nil)
}

func (w *world) podmanPull(ctx context.Context, ref string) action {
	return w.onDisk(ctx, "podman", func(dir string) (float64, error) {
		return run(ctx, nil, "podman", "--root", dir+"/root", "--runroot", dir+"/run", "--storage-driver", "overlay",
			"--cgroup-manager", "cgroupfs", "--events-backend", "none", "pull", "--quiet", "--tls-verify=false", ref)
	}, nil)
}

// ctrPull is containerd with a new state every time; its start does not count.
func (w *world) ctrPull(ctx context.Context, ref string) action {
	stop := func() {}
	a := w.onDisk(ctx, "containerd", func(dir string) (float64, error) {
		return run(ctx, nil, "ctr", "--address", dir+"/sock", "images", "pull", "--plain-http", "--snapshotter", "overlayfs", ref)
	}, func() { stop() })
	disk := a.prepare
	var dir string
	a.prepare = func() (err error) {
		if err = disk(); err != nil {
			return err
		}
		dir = w.lastDisk
		config := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n",
			dir+"/root", dir+"/state", dir+"/sock")
		if err = os.WriteFile(dir+"/config.toml", []byte(config), 0o600); err != nil {
			return err
		}
		stop, _, err = w.start(ctx, dir+"/sock", nil, "containerd", "--config", dir+"/config.toml")
		return err
	}
	return a
}

// floors are what nobody can do without: every layer decompressed, with the library that tare uses, on all processors; and
// the files of the image written once.
func (w *world) floors(ctx context.Context, ref string) ([]action, error) {
	tree := w.fresh("tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return nil, err
	}
	argv := []string{"/proc/self/exe", decompressArg}
	for _, d := range w.image.Layers {
		argv = append(argv, w.image.blob(d))
		if _, err := run(ctx, nil, "tar", "-xzpf", w.image.blob(d), "-C", tree); err != nil {
			return nil, err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	argv[0] = self
	return []action{
		{row: rowPull, who: "decompress", once: func() (float64, error) { return run(ctx, nil, argv...) }},
		w.onDisk(ctx, "cp -a", func(dir string) (float64, error) { return run(ctx, nil, "cp", "-a", tree, dir+"/copy") }, nil),
	}, nil
}

// memory measures what unpacking and serving take at most.
func (w *world) memory(ctx context.Context) error {
	if err := w.pullMemory(ctx); err != nil {
		return err
	}
	return w.serveMemory(ctx)
}

// pullMemory notes the peak of a pull's resident memory.
func (w *world) pullMemory(ctx context.Context) error {
	var err error
	if w.image, err = loadImage(ctx, w.o.cache, w.o.mib); err != nil {
		return err
	}
	address, _, err := w.registry(ctx)
	if err != nil {
		return err
	}
	if err := w.image.push(ctx, address); err != nil {
		return err
	}
	root := w.fresh("tare")
	defer os.RemoveAll(root)
	c := exec.CommandContext(ctx, filepath.Join(w.o.bin, "tare"), "pull", "--root", root, "--quiet", address+"/bench:1")
	if err := c.Start(); err != nil {
		return err
	}
	peak := watchPeak(c.Process.Pid)
	err = c.Wait()
	w.notes = append(w.notes, fmt.Sprintf("Resident memory of `tare pull` of this image at its peak: %.1f MiB.", float64(peak())/(1<<20)))
	return err
}

// watchPeak reads a process's peak of resident memory until it ends; the result returns the last that was read, in bytes.
func watchPeak(pid int) func() int64 {
	done, last := make(chan struct{}), make(chan int64)
	go func() {
		var peak int64
		for {
			if n, err := status(pid, "VmHWM"); err == nil {
				peak = max(peak, n)
			}
			select {
			case <-done:
				last <- peak
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return func() int64 { close(done); return <-last }
}

// status returns a field of /proc/PID/status that is in kB, in bytes.
func status(pid int, field string) (int64, error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, err
	}
	var n int64
	for line := range lines(string(data)) {
		if _, err := fmt.Sscanf(line, field+": %d kB", &n); err == nil {
			return n << 10, nil
		}
	}
	return 0, fmt.Errorf("no %s of process %d", field, pid)
}
