package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/internal/imagetest"
	"github.com/tare-oci/tare/image/manifest"
)

// saved writes images "localhost/one:1" (gzip and plain layers) and, if both, "busybox:2" (shares the first layer) in a format, and
// returns the path and the layers' tars of either.
func saved(t *testing.T, format SaveFormat, both bool) (path string, tars map[string][][]byte) {
	t.Helper()
	base := imagetest.Layer{Tar: imagetest.Busybox(t), Compression: "gzip"}
	var images []imagetest.Image
	tars = map[string][][]byte{}
	names := []string{"localhost/one:1", "busybox:2"}
	if !both {
		names = names[:1]
	}
	for _, name := range names {
		img := imagetest.Image{Name: name, Layers: []imagetest.Layer{base, {Tar: imagetest.Tar(t, entry("etc/hostname", name))}}}
		img.Config.Config = v1.ImageConfig{Cmd: []string{"/bin/sh"}, Env: []string{"PATH=/bin"}, Labels: map[string]string{"name": name}}
		tars[name] = [][]byte{base.Tar, img.Layers[1].Tar}
		images = append(images, img)
	}
	data, err := save(t, imagetest.Layout(t, images...), SaveOptions{Format: format}, names...)
	return imagetest.WriteFile(t, must(t, data, err)), tars
}

// TestSkopeoReads lets skopeo read what this package writes, in every form, and compares what it writes itself.
func TestSkopeoReads(t *testing.T) {
	need(t, "skopeo", "diff")
	src, tars := original(t, "x")
	dir := t.TempDir()
	id := compare(t, src, "x", tars).ID
	for i, form := range []string{"oci:" + dir + "/o:x", "oci-archive:" + dir + "/oa:x", "dir:" + dir + "/d", "docker-archive:" + dir + "/da:x:1"} {
		d := copyImage(t, src, form)
		back := dir + "/back" + string(rune('0'+i))
		run(t, "skopeo", "copy", "--insecure-policy", "--quiet", "--preserve-digests", form, "oci:"+back+":x")
		img := compare(t, "oci:"+back+":x", "x", tars)
		if img == nil || img.ID != id || !strings.HasPrefix(form, "docker") && img.ManifestDigest != d.Digest {
			t.Errorf("%s: skopeo read %+v", form, img)
		}
	}
	run(t, "skopeo", "copy", "--insecure-policy", "--quiet", "--preserve-digests", src, "dir:"+dir+"/theirs")
	run(t, "diff", "-r", dir+"/d", dir+"/theirs")
	compare(t, "dir:"+dir+"/theirs", "x", tars)

	f, _ := multi(t) // an index in a dir:
	layout := f.WriteDir(t)
	copyImage(t, "oci:"+layout+":multi", "dir:"+dir+"/multi")
	run(t, "skopeo", "copy", "--insecure-policy", "--quiet", "--all", "--preserve-digests", "oci:"+layout+":multi", "dir:"+dir+"/multi2")
	run(t, "diff", "-r", dir+"/multi", dir+"/multi2")
}

// TestSkopeoReadsSaved lets skopeo read both formats of WriteSave in both ways.
func TestSkopeoReadsSaved(t *testing.T) {
	need(t, "skopeo")
	for _, c := range []struct {
		format SaveFormat
		both   bool
		refs   map[string]string
	}{
		{Combined, false, map[string]string{"docker-archive:%": "localhost/one:1", "oci-archive:%": "localhost/one:1", "oci-archive:%:1": "localhost/one:1"}},
		{Combined, true, map[string]string{"docker-archive:%:busybox:2": "busybox:2", "docker-archive:%:@0": "localhost/one:1", "oci-archive:%:2": "busybox:2"}},
		{Legacy, true, map[string]string{"docker-archive:%:busybox:2": "busybox:2", "docker-archive:%:localhost/one:1": "localhost/one:1"}},
	} {
		path, tars := saved(t, c.format, c.both)
		for ref, name := range c.refs {
			to := "oci:" + t.TempDir() + "/o"
			run(t, "skopeo", "copy", "--insecure-policy", "--quiet", strings.Replace(ref, "%", path, 1), to)
			compare(t, to, name, tars[name])
		}
	}
}

// TestPodmanLoad lets podman load both formats.
func TestPodmanLoad(t *testing.T) {
	need(t, "podman")
	dir := t.TempDir()
	podman := func(args ...string) []byte {
		t.Helper()
		return run(t, append([]string{"podman", "--storage-driver", "vfs", "--root", dir + "/root", "--runroot", dir + "/run",
			"--tmpdir", dir + "/tmp", "--events-backend", "none", "--cgroup-manager", "cgroupfs"}, args...)...)
	}
	for _, format := range []SaveFormat{Combined, Legacy} {
		for _, both := range []bool{false, true} {
			path, tars := saved(t, format, both)
			podman("load", "--quiet", "--input", path)
			for name := range tars {
				full := map[string]string{"busybox:2": "docker.io/library/busybox:2"}[name]
				if full == "" {
					full = name
				}
				var found []struct {
					Id     string
					Config v1.ImageConfig
				}
				if err := json.Unmarshal(podman("image", "inspect", full), &found); err != nil || len(found) != 1 || found[0].Config.Labels["name"] != name {
					t.Errorf("%s %s: %+v, %v", format, name, found, err)
				}
				podman("rmi", full)
			}
		}
	}
}

// TestContainerdImport lets ctr import both formats.
func TestContainerdImport(t *testing.T) {
	need(t, "containerd", "ctr")
	if os.Getuid() != 0 {
		t.Skip("containerd runs as root only")
	}
	ctr := startContainerd(t)
	for _, format := range []SaveFormat{Combined, Legacy} {
		path, _ := saved(t, format, true)
		ctr("images", "import", "--no-unpack", path)
		list := string(ctr("images", "list", "-q"))
		for _, name := range []string{"docker.io/library/busybox:2", "localhost/one:1"} {
			if !strings.Contains(list, name+"\n") {
				t.Errorf("%s: containerd has %q", format, list)
			}
			ctr("images", "remove", name)
		}
	}
	f, _ := multi(t)
	data, err := save(t, f, SaveOptions{Platforms: []manifest.Platform{{OS: "linux", Architecture: manifest.Host().Architecture}}}, "multi")
	path := imagetest.WriteFile(t, must(t, data, err))
	ctr("images", "import", "--no-unpack", path)
	if list := string(ctr("images", "list", "-q")); !strings.Contains(list, "docker.io/library/multi:latest\n") {
		t.Errorf("containerd has %q", list)
	}
}

// startDocker starts a daemon with everything that it writes below a temporary directory, in namespaces of its own, and returns
// a function that runs docker against it.
func startDocker(t *testing.T) (docker func(args ...string) []byte) {
	t.Helper()
	need(t, "dockerd", "docker", "containerd", "unshare")
	if os.Getuid() != 0 {
		t.Skip("dockerd runs as root only")
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/none.json", []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "dockerd", "--config-file", dir+"/none.json",
		"--data-root", dir+"/root", "--exec-root", dir+"/exec", "--pidfile", dir+"/pid", "-H", "unix://"+dir+"/s", "--storage-driver", "vfs",
		"--log-level", "error", "--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false", "--userland-proxy=false")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGKILL)
		<-ended
		if t.Failed() {
			t.Logf("dockerd: %s", log.Bytes())
		}
	})
	args := []string{"docker", "-H", "unix://" + dir + "/s", "--config", dir + "/cli"}
	for exec.Command(args[0], append(args[1:], "version")...).Run() != nil {
		select {
		case <-ended:
			t.Skipf("dockerd does not start on this machine: %s", log.Bytes())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return func(more ...string) []byte {
		t.Helper()
		return run(t, append(args, more...)...)
	}
}

// TestDockerLoad lets Docker load both formats, and compares the legacy one with what Docker saves itself: the same members with
// the same content, ids included (row S1).
func TestDockerLoad(t *testing.T) {
	docker := startDocker(t)
	for _, format := range []SaveFormat{Combined, Legacy} {
		path, tars := saved(t, format, true)
		out := string(docker("load", "--input", path))
		for name := range tars {
			if !strings.Contains(out, "Loaded image: "+name) {
				t.Errorf("%s: docker load said %s", format, out)
			}
			label := docker("image", "inspect", "--format", `{{index .Config.Labels "name"}} {{.Id}}`, name)
			a := open(t, "docker-archive:"+path+":"+name)
			img, err := a.Image(context.Background(), manifest.Host())
			if err != nil || strings.TrimSpace(string(label)) != name+" "+img.ID.String() {
				t.Errorf("%s %s: %s, %+v, %v", format, name, label, img, err)
			}
		}
		if format == Combined {
			docker("rmi", "busybox:2", "localhost/one:1")
		}
	}
	theirs := filepath.Join(t.TempDir(), "theirs.tar")
	docker("save", "--output", theirs, "localhost/one:1")
	path := filepath.Join(t.TempDir(), "ours.tar")
	a := open(t, "docker-archive:"+theirs)
	d, err := a.Resolve(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := WriteSave(context.Background(), &b, []SaveImage{{Names: []string{"localhost/one:1"}, Source: a, Descriptor: d}}, SaveOptions{Format: Legacy}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	ours := open(t, "docker-archive:"+path)
	raw, err := os.ReadFile(theirs)
	members := headers(t, must(t, raw, err))
	for name, h := range headers(t, b.Bytes()) {
		want := members[name]
		if want == nil || want.Typeflag != h.Typeflag || want.Size != h.Size {
			t.Errorf("%s: %+v, Docker's %+v", name, h, want)
			continue
		}
		if h.Size > 0 && h.Size < 1<<16 {
			x, err := ours.readFile(name, 1<<20)
			must(t, x, err)
			y, err := a.readFile(name, 1<<20)
			if !bytes.Equal(x, must(t, y, err)) {
				t.Errorf("%s: %s\nDocker's: %s", name, x, y)
			}
		}
	}
	if len(members) != len(headers(t, b.Bytes())) || digest.FromBytes(raw) == "" {
		t.Errorf("%d members, Docker has %d", len(headers(t, b.Bytes())), len(members))
	}
}
