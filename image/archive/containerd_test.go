package archive

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/internal/imagetest"
	"github.com/tare-oci/tare/image/manifest"
)

// startContainerd starts a containerd with everything that it writes below a temporary directory, without what needs the
// host, and returns a function that runs ctr against it.
func startContainerd(t *testing.T) (ctr func(args ...string) []byte) {
	t.Helper()
	dir := t.TempDir()
	socket, config := filepath.Join(dir, "s"), filepath.Join(dir, "config.toml")
	text := fmt.Sprintf(`version = 2
root = "%s/root"
state = "%s/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = %q
[debug]
level = "warn"
`, dir, dir, socket)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("containerd", "--config", config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if t.Failed() {
			t.Logf("containerd: %s", log.Bytes())
		}
	})
	return func(args ...string) []byte {
		t.Helper()
		return run(t, append([]string{"ctr", "--address", socket, "--connect-timeout", "20s"}, args...)...)
	}
}

// TestContainerdExport reads what ctr images export writes: the form of docker save since version 25, an OCI layout with a
// manifest.json, of one image, of two, and of one for several platforms.
func TestContainerdExport(t *testing.T) {
	need(t, "containerd", "ctr")
	if os.Getuid() != 0 {
		t.Skip("containerd runs as root only")
	}
	ctr := startContainerd(t)
	tars := [][]byte{imagetest.Busybox(t), imagetest.Tar(t, entry("etc/hostname", "x"))}
	image := func(name, arch string) imagetest.Image {
		img := imagetest.Image{Name: name, Layers: []imagetest.Layer{{Tar: tars[0], Compression: "gzip"}, {Tar: tars[1]}}}
		img.Config.Config = v1.ImageConfig{Cmd: []string{"/bin/sh"}, Env: []string{"PATH=/bin"}, Labels: map[string]string{"name": name + arch}}
		img.Config.Platform.Architecture, img.Config.Platform.OS = arch, "linux"
		return img
	}
	host := manifest.Host().Architecture
	f := imagetest.Layout(t)
	inner := imagetest.Files{}
	inner.SetIndex(t, f.AddImage(t, image("", "s390x")), f.AddImage(t, image("", "arm64")), f.AddImage(t, image("", "amd64")))
	multi := f.Add(v1.MediaTypeImageIndex, inner["index.json"])
	multi.Annotations = map[string]string{v1.AnnotationRefName: "multi"}
	f.SetIndex(t, f.AddImage(t, image("one", host)), f.AddImage(t, image("two", host)), multi)
	ctr("images", "import", "--no-unpack", "--all-platforms", "--base-name", "localhost/x", f.WriteTar(t))

	out := filepath.Join(t.TempDir(), "e.tar")
	export := func(platforms string, names ...string) {
		t.Helper()
		ctr(append([]string{"images", "export", "--all-platforms=" + platforms, out}, names...)...)
	}
	export("false", "localhost/x:one")
	for _, ref := range []string{"oci-archive:" + out, "docker-archive:" + out, "oci-archive:" + out + ":localhost/x:one", "docker-archive:" + out + ":localhost/x:one"} {
		if img := compare(t, ref, "one"+host, tars); img != nil && img.Name != "localhost/x:one" {
			t.Errorf("%s: name %q", ref, img.Name)
		}
	}
	export("false", "localhost/x:one", "localhost/x:two")
	for _, transport := range []string{"oci-archive:", "docker-archive:"} {
		compare(t, transport+out+":localhost/x:two", "two"+host, tars)
		_, _, err := read(transport+out, manifest.Platform{})
		expect(t, err, "which image is not said")
	}
	export("true", "localhost/x:multi") // manifest.json has only the host's platform
	compare(t, "docker-archive:"+out, host, tars)
	for _, arch := range []string{"s390x", "arm64", "amd64"} {
		p, err := manifest.ParsePlatform("linux/" + arch)
		if err != nil {
			t.Fatal(err)
		}
		img, _, err := read("oci-archive:"+out+":localhost/x:multi", p)
		if err != nil || img.Config.Config.Labels["name"] != arch {
			t.Errorf("%s: %+v, %v", arch, img, err)
		}
	}
	export("false", "localhost/x:multi") // the other platforms' blobs are missing
	compare(t, "oci-archive:"+out, host, tars)
}
