package archive

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/internal/imagetest"
	"github.com/tare-oci/tare/image/manifest"
)

// need skips a test of files that another tool writes where the tool is not installed.
func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("peer is not installed: %v", err)
		}
	}
}

// run runs a peer and returns its standard output.
func run(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out
}

// original makes the image that the peers copy, as an OCI layout, and returns its reference and its layers' tars.
func original(t *testing.T, name string) (ref string, tars [][]byte) {
	t.Helper()
	tars = [][]byte{imagetest.Busybox(t), imagetest.Tar(t, entry("etc/hostname", name))}
	img := imagetest.Image{Name: name, Layers: []imagetest.Layer{{Tar: tars[0], Compression: "gzip"}, {Tar: tars[1]}}}
	img.Config.Config = v1.ImageConfig{Cmd: []string{"/bin/sh"}, Env: []string{"PATH=/bin"}, Labels: map[string]string{"name": name}}
	return "oci:" + imagetest.Layout(t, img).WriteDir(t), tars
}

// compare reads ref and checks that it is the image with the config fields and the layers of original.
func compare(t *testing.T, ref, name string, tars [][]byte) *Image {
	t.Helper()
	img, layers, err := read(ref, manifest.Host())
	if err != nil {
		t.Error(err)
		return nil
	}
	if c := img.Config.Config; c.Labels["name"] != name || !slices.Equal(c.Cmd, []string{"/bin/sh"}) || !slices.Equal(c.Env, []string{"PATH=/bin"}) {
		t.Errorf("%s: config %s", ref, img.ConfigRaw)
	}
	if len(layers) != len(tars) {
		t.Errorf("%s: %d layers, want %d", ref, len(layers), len(tars))
		return img
	}
	for i, stored := range layers {
		plain := stored
		if sniff(stored) == "gzip" {
			gz, err := gzip.NewReader(bytes.NewReader(stored))
			if err != nil {
				t.Fatal(err)
			}
			if plain, err = io.ReadAll(gz); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(plain, tars[i]) || img.Layers[i].DiffID != digest.FromBytes(plain) {
			t.Errorf("%s: layer %d is %+v", ref, i, img.Layers[i])
		}
	}
	return img
}

// TestSkopeo reads every form in which skopeo writes an image.
func TestSkopeo(t *testing.T) {
	need(t, "skopeo")
	src, tars := original(t, "x")
	dir := t.TempDir()
	original := compare(t, src, "x", tars)
	if original == nil {
		t.FailNow()
	}
	for _, dst := range []string{
		"oci:" + dir + "/o1", "oci:" + dir + "/o2:v1", "oci:" + dir + "/o3:docker.io/library/busybox:1",
		"oci-archive:" + dir + "/a1.tar", "oci-archive:" + dir + "/a2.tar:v1",
		"docker-archive:" + dir + "/d1.tar", "docker-archive:" + dir + "/d2.tar:busybox:1", "docker-archive:" + dir + "/d3.tar:localhost:5000/a/b:c",
	} {
		run(t, "skopeo", "copy", "--insecure-policy", "--quiet", src, dst)
		img := compare(t, dst, "x", tars)
		if img == nil {
			continue
		}
		if inspected := run(t, "skopeo", "inspect", "--config", "--raw", dst); digest.FromBytes(inspected) != img.ID {
			t.Errorf("%s: ID %s, skopeo's config %s", dst, img.ID, inspected)
		}
		if strings.HasPrefix(dst, "oci") && img.ID != original.ID {
			t.Errorf("%s: ID %s, want %s", dst, img.ID, original.ID)
		}
	}
}

// TestUmoci reads a layout that umoci made and changed.
func TestUmoci(t *testing.T) {
	need(t, "umoci")
	src, tars := original(t, "x")
	layout := strings.TrimPrefix(src, "oci:")
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "added"), []byte("by umoci"), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "umoci", "insert", "--image", layout+":x", "--tag", "y", root, "/opt")
	run(t, "umoci", "config", "--image", layout+":y", "--config.user", "1:2")
	run(t, "umoci", "new", "--image", layout+":empty")
	img, _, err := read(src+":y", manifest.Platform{})
	if err != nil {
		t.Fatal(err)
	}
	if img.Name != "y" || img.Config.Config.User != "1:2" || len(img.Layers) != 3 || img.Layers[0].DiffID != digest.FromBytes(tars[0]) {
		t.Errorf("name %s, layers %+v, config %s", img.Name, img.Layers, img.ConfigRaw)
	}
	if img, _, err := read(src+":empty", manifest.Platform{}); err != nil || len(img.Layers) != 0 {
		t.Errorf("image without layers: %+v, %v", img, err)
	}
	compare(t, src+":x", "x", tars)
	_, _, err = read(src, manifest.Platform{})
	for _, name := range []string{`"x"`, `"y"`, `"empty"`} {
		expect(t, err, name)
	}
}

// TestPodmanSave reads what podman save writes, with one image and with several.
func TestPodmanSave(t *testing.T) {
	need(t, "podman", "skopeo")
	dir := t.TempDir()
	podman := func(args ...string) []byte {
		t.Helper()
		return run(t, append([]string{"podman", "--storage-driver", "vfs", "--root", dir + "/root", "--runroot", dir + "/run",
			"--tmpdir", dir + "/tmp", "--events-backend", "none", "--cgroup-manager", "cgroupfs"}, args...)...)
	}
	tars := map[string][][]byte{}
	for _, name := range []string{"one", "two"} {
		var src string
		src, tars[name] = original(t, name)
		file := dir + "/" + name + ".tar"
		run(t, "skopeo", "copy", "--insecure-policy", "--quiet", src, "docker-archive:"+file+":localhost/"+name+":latest")
		podman("load", "--quiet", "--input", file)
	}
	for format, transport := range map[string]string{
		"docker-archive": "docker-archive:", "oci-archive": "oci-archive:", "oci-dir": "oci:",
	} {
		out := dir + "/" + format
		podman("save", "--quiet", "--format", format, "--output", out, "localhost/one:latest")
		img := compare(t, transport+out, "one", tars["one"])
		if img != nil && img.Name != "localhost/one:latest" {
			t.Errorf("%s: name %q", format, img.Name)
		}
		compare(t, transport+out+":localhost/one:latest", "one", tars["one"])
	}
	both := dir + "/both.tar"
	podman("save", "--quiet", "--multi-image-archive", "--output", both, "localhost/one:latest", "localhost/two:latest")
	for i, name := range []string{"one", "two"} {
		img := compare(t, "docker-archive:"+both+":localhost/"+name, name, tars[name])
		var inspected []struct{ Id string }
		if err := json.Unmarshal(podman("image", "inspect", "localhost/"+name+":latest"), &inspected); err != nil || len(inspected) != 1 {
			t.Fatalf("podman image inspect: %+v, %v", inspected, err)
		}
		if img == nil || img.ID.Encoded() != inspected[0].Id {
			t.Errorf("%s: ID of %+v, podman's %s", name, img, inspected[0].Id)
		}
		if byPosition, _, err := read("docker-archive:"+both+":@"+string(rune('0'+i)), manifest.Platform{}); err != nil || img == nil || byPosition.ID != img.ID {
			t.Errorf("@%d: %+v, %v", i, byPosition, err)
		}
	}
	_, _, err := read("docker-archive:"+both, manifest.Platform{})
	expect(t, err, `which image is not said: there are "localhost/one:latest" @0, "localhost/two:latest" @1`)
}
