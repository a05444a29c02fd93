package images

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestCopyEverywhere takes an image, and an index, through every place: the digest stays, and skopeo reads each of them.
func TestCopyEverywhere(t *testing.T) {
	for _, image := range []string{"one", "multi"} {
		b := newBox(t)
		name := b.seed(image)
		want := digest.FromString(rawOf(b, name)).String()
		last := host + "/copied/" + image + ":2"
		places := []string{"docker://" + name, "dir:" + b.dir + "/dir", "oci:" + b.dir + "/layout:x", "oci-archive:" + b.dir + "/oci.tar:y",
			"store:" + image, "docker-archive:" + b.dir + "/docker.tar:some/name:3", "docker://" + last}
		if image == "multi" { // a docker-archive has no place for an index
			places = slices.Delete(places, 5, 6)
		}
		for i := range places[1:] {
			if got := b.ok("copy -q", places[i], places[i+1]); got != want {
				t.Fatalf("%s to %s: digest %s, want %s", places[i], places[i+1], got, want)
			}
		}
		if got := digest.FromString(rawOf(b, last)).String(); got != want {
			t.Errorf("%s came out with digest %s", image, got)
		}
		for _, place := range []string{places[1], places[2], places[3], "oci:" + b.root + "/store:docker.io/library/" + image + ":latest"} {
			b.peer("skopeo", "inspect", place)
		}
		if r := b.run("diff docker://" + name + " store:" + image); r.code != 0 || r.out != "" {
			t.Errorf("diff: status %d %s%s", r.code, r.out, r.err)
		}
	}
}

// TestCopyPeers reads what skopeo writes, and skopeo reads what tare writes.
func TestCopyPeers(t *testing.T) {
	b := newBox(t)
	name := b.seed("one")
	want := digest.FromString(rawOf(b, name)).String()
	for _, place := range []string{"dir:" + b.dir + "/d", "oci:" + b.dir + "/o:x", "oci-archive:" + b.dir + "/o.tar:x"} {
		b.peer("skopeo", "copy", "-q", "--src-tls-verify=false", "docker://"+name, place)
		if got := b.ok("copy -q", place, "store:from-skopeo"); got != want {
			t.Errorf("%s: digest %s, want %s", place, got, want)
		}
		mine := strings.Replace(place, b.dir, b.dir+"/mine-", 1)
		b.ok("copy -q", "docker://"+name, mine)
		back := host + "/back/one:1"
		b.peer("skopeo", "copy", "-q", "--dest-tls-verify=false", mine, "docker://"+back)
		if got := digest.FromString(rawOf(b, back)).String(); got != want {
			t.Errorf("%s: skopeo made digest %s of it, want %s", mine, got, want)
		}
	}
	b.peer("umoci", "unpack", "--image", b.dir+"/mine-/o:x", b.dir+"/bundle")
	if data, err := os.ReadFile(b.dir + "/bundle/rootfs/etc/release"); err != nil || string(data) != "one\n" {
		t.Errorf("umoci unpacked %q, %v", data, err)
	}
}

// TestSparse copies an index with some of its images: its bytes stay; who does not take that is named with a way out.
func TestSparse(t *testing.T) {
	b := newBox(t)
	name := b.seed("multi")
	want := digest.FromString(rawOf(b, name)).String()
	place := "oci:" + b.dir + "/sparse:x"
	if got := b.ok("copy -q --platform linux/s390x docker://"+name, place); got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
	if blobs, err := filepath.Glob(b.dir + "/sparse/blobs/sha256/*"); err != nil || len(blobs) != 4 {
		t.Errorf("%d blobs, %v; want index, manifest, configuration and layer", len(blobs), err)
	}
	b.fails(1, "is missing", "copy -q "+place+" dir:"+b.dir+"/d")
	b.ok("copy -q --sparse "+place, "oci:"+b.dir+"/again:x")
	b.fails(1, "one image without the index", "copy -q --sparse "+place+" docker://"+host+"/sparse/x:1")
	one := b.ok("copy -q --no-index --platform linux/s390x "+place, "docker://"+host+"/sparse/x:2")
	if got := b.peer("skopeo", "inspect", "--override-arch", "s390x", "--tls-verify=false", "--format", "{{.Digest}}", "docker://"+host+"/sparse/x:2"); got != one || got == want {
		t.Errorf("the one image has digest %s, skopeo says %s", one, got)
	}
}

// TestPush sends what is there, by name, and of a sparse index the one image that is there.
func TestPush(t *testing.T) {
	b := newBox(t)
	name := b.seed("one")
	b.ok("pull -q --no-unpack " + name)
	other := host + "/pushed/one:7"
	b.ok("tag " + name + " " + other)
	out := b.ok("push --progress none " + other)
	want := digest.FromString(rawOf(b, name)).String()
	if !strings.Contains(out, other+": digest: "+want) {
		t.Errorf("push wrote %q", out)
	}
	if got := digest.FromString(rawOf(b, other)).String(); got != want {
		t.Errorf("pushed %s, want %s", got, want)
	}
	if out := b.ok("search " + host + "/pushed/one"); out != "7" {
		t.Errorf("search wrote %q", out)
	}
	multi := b.seed("multi")
	b.ok("pull -q --no-unpack " + multi)
	b.ok("tag " + multi + " " + host + "/pushed/multi:1")
	r := b.run("push --progress none " + host + "/pushed/multi:1")
	if r.code != 0 || !strings.Contains(r.err, "only the image for linux/") || strings.Contains(b.raw(host+"/pushed/multi:1"), "manifests") {
		t.Errorf("status %d %s", r.code, r.err)
	}
	b.fails(1, "one image without the index", "push --sparse --progress none "+host+"/pushed/multi:1")
	b.ok("pull -q --all-platforms --no-unpack " + multi)
	b.ok("push -q " + host + "/pushed/multi:1")
	if got := digest.FromString(rawOf(b, host+"/pushed/multi:1")).String(); got != digest.FromString(rawOf(b, multi)).String() {
		t.Errorf("pushed index %s", got)
	}
	b.fails(1, "not found in the store", "push "+host+"/never/seen")
}

// TestSaveLoad writes what podman and skopeo load, and loads what they write.
func TestSaveLoad(t *testing.T) {
	b := newBox(t)
	name := b.seed("one")
	b.ok("pull -q " + name)
	want := digest.FromString(rawOf(b, name)).String()
	b.ok("tag " + name + " local/thing:v1")
	b.ok("save -o "+b.dir+"/a.tar", name, "local/thing:v1")
	b.ok("save -o "+b.dir+"/b.tar", name, "local/thing:v1")
	if x, y := b.peer("sha256sum", b.dir+"/a.tar"), b.peer("sha256sum", b.dir+"/b.tar"); x[:64] != y[:64] {
		t.Error("the same images gave other bytes")
	}
	podman := []string{"--root", b.dir + "/podman", "--runroot", b.dir + "/podman-run", "--storage-driver", "vfs"}
	if out := b.peer("podman", append(podman, "load", "-i", b.dir+"/a.tar")...); !strings.Contains(out, name) {
		t.Errorf("podman load wrote %q", out)
	}
	b.ok("save --format legacy -o "+b.dir+"/legacy.tar", "local/thing:v1")
	b.peer("skopeo", "inspect", "docker-archive:"+b.dir+"/legacy.tar")
	b.peer("skopeo", "inspect", "docker-archive:"+b.dir+"/a.tar:"+name)
	b.peer("skopeo", "inspect", "oci-archive:"+b.dir+"/a.tar:v1")
	for _, format := range []string{"docker-archive", "oci-archive"} {
		file := b.dir + "/podman-" + format + ".tar"
		b.peer("podman", append(podman, "save", "-q", "--format", format, "-o", file, name)...)
		fresh := newBox(t)
		if out := fresh.ok("load -i " + file); !strings.Contains(out, "Loaded image") {
			t.Errorf("%s: load wrote %q", format, out)
		}
		id := fresh.ok("images -q")
		if out := fresh.ok("run --rm --pull never", id, "cat", "/etc/release"); out != "one" {
			t.Errorf("%s: run wrote %q", format, out)
		}
	}
	for _, file := range []string{"a.tar", "legacy.tar"} {
		fresh := newBox(t)
		in, err := os.Open(filepath.Join(b.dir, file))
		if err != nil {
			t.Fatal(err)
		}
		r := fresh.input(in, "load")
		in.Close()
		if r.code != 0 || !strings.Contains(r.out, "Loaded image: local/thing:v1\n") {
			t.Errorf("load %s: status %d, %q %q", file, r.code, r.out, r.err)
		}
		if out := fresh.ok("run --rm --pull never local/thing:v1", "cat", "/etc/release"); out != "one" {
			t.Errorf("%s: run wrote %q", file, out)
		}
		if out := fresh.ok("images --digests local/thing:v1"); file == "a.tar" && !strings.Contains(out, want) {
			t.Errorf("images: %s", out)
		}
	}
	b.fails(1, "not a tar archive", "load -i /bin/tar")
	b.fails(1, "not found in the store", "save -o "+b.dir+"/none.tar nothing")
	if _, err := os.Stat(b.dir + "/none.tar"); err == nil {
		t.Error("a save that failed left a file")
	}
}
