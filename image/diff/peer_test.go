package diff

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/internal/imagetest"
)

// plainTree is what peers keep of base: umoci and podman drop some attributes.
const plainTree = `
mkdir -p etc bin var/log/deep dir/keep dir/gone empty
echo passwd >etc/passwd; echo shadow >etc/shadow; chmod 640 etc/shadow; chown 0:42 etc/shadow
printf '#!/bin/sh\n' >bin/su; chmod 4755 bin/su; ln bin/su bin/su2; ln -s su bin/link
setfattr -n user.note -v 'a=b' etc/passwd; mkfifo dir/fifo; mknod dir/null c 1 3; echo x >dir/keep/x; echo y >dir/gone/y; echo log >var/log/deep/log
find . -depth -exec touch -h -d '2021-05-06 07:08:09' {} +
`

// wholeSeconds rounds the times of what was changed just now, as peers do when they pack.
const wholeSeconds = "\nfind . -depth -newermt 2022-01-01 -exec touch -h -d @1700000000 {} +\n"

// TestUmoci lets umoci unpack a layer of ours and one that changes it, and compares the changes that it finds itself.
func TestUmoci(t *testing.T) {
	need(t, "umoci", "skopeo", "setfattr", "getfattr")
	before := filepath.Join(t.TempDir(), "before")
	if err := os.Mkdir(before, 0o755); err != nil {
		t.Fatal(err)
	}
	sh(t, before, plainTree)
	after := copyOf(t, before)
	sh(t, after, changeBase)
	lowest, _ := write(t, trees(t, "", before), LayerOptions{})
	change, _ := write(t, trees(t, before, after), LayerOptions{})

	work := t.TempDir()
	img := imagetest.Image{Name: "x", Layers: []imagetest.Layer{{Tar: lowest}, {Tar: change}}}
	img.Config.Platform = v1.Platform{OS: "linux", Architecture: "amd64"}
	one := imagetest.Image{Name: "one", Layers: img.Layers[:1], Config: img.Config}
	layout := imagetest.Layout(t, img, one).WriteDir(t)
	sh(t, work, "umoci unpack --image "+layout+":x bundle")
	in := trees(t, after, work+"/bundle/rootfs")
	in.Content = true
	if got := list(t, in); got != "" {
		t.Errorf("what umoci unpacked differs:\n%s", got)
	}

	// The other way: umoci packs the change, and the entries are ours.
	sh(t, work, "umoci unpack --image "+layout+":one b1; cd b1/rootfs; "+changeBase+wholeSeconds+"cd ../..; umoci repack --image "+layout+":repacked b1; umoci unpack --image "+layout+":repacked b2")
	in = trees(t, before, work+"/b1/rootfs")
	ours, _ := write(t, in, LayerOptions{})
	theirs := sh(t, work, `m=$(skopeo inspect --raw oci:`+layout+`:repacked | grep -o 'sha256:[0-9a-f]*' | tail -1); gzip -dc `+layout+`/blobs/sha256/${m#sha256:}`)
	names := func(data []byte) []string {
		found := map[string]bool{}
		for _, e := range entries(t, data) {
			name, _, _ := strings.Cut(e[2:], " > ")
			found[strings.TrimSuffix(name, "/")] = true
		}
		var list []string
		for name := range found {
			list = append(list, name)
		}
		slices.Sort(list)
		return list
	}
	// umoci has only the directories that changed themselves, we have all on the way: those are not compared.
	a, b := names(ours), names([]byte(theirs))
	for _, name := range b {
		if !slices.Contains(a, name) && name != "." && name != "dir/keep/.wh.x" { // dir/keep is a file now
			t.Errorf("umoci has %s", name)
		}
	}
	for _, name := range a {
		if info, err := os.Lstat(work + "/b1/rootfs/" + name); !slices.Contains(b, name) && (err != nil || !info.IsDir()) {
			t.Errorf("umoci does not have %s", name)
		}
	}
}

// TestPodman compares the changes that podman diff shows, and what podman commit makes of a change.
func TestPodman(t *testing.T) {
	need(t, "podman", "setfattr")
	before := filepath.Join(t.TempDir(), "before")
	if err := os.Mkdir(before, 0o755); err != nil {
		t.Fatal(err)
	}
	sh(t, before, plainTree)
	data, _ := write(t, trees(t, "", before), LayerOptions{})
	work := t.TempDir()
	if err := os.WriteFile(work+"/base.tar", data, 0o644); err != nil {
		t.Fatal(err)
	}
	podman := `p() { podman --storage-driver vfs --root $PWD/root --runroot $PWD/run --tmpdir $PWD/tmp --events-backend none --cgroup-manager cgroupfs "$@"; }; `
	sh(t, work, podman+`p import -q base.tar x:1 >/dev/null; p create --name c x:1 true >/dev/null; p mount c >mount; cp -a "$(cat mount)" clean; cd "$(cat mount)"; `+changeBase+wholeSeconds)
	mounted := strings.TrimSpace(sh(t, work, "cat mount"))
	ours := strings.Split(strings.TrimSpace(list(t, trees(t, work+"/clean", mounted))), "\n")
	slices.Sort(ours)
	theirs := strings.Split(strings.TrimSpace(sh(t, work, podman+"p diff c")), "\n")
	theirs = slices.DeleteFunc(theirs, func(line string) bool { // podman makes these for the container itself
		switch line {
		case "C /":
			return true
		}
		return false
	})
	slices.Sort(theirs)
	if !slices.Equal(ours, theirs) {
		t.Errorf("changes are\n%s\npodman's\n%s", strings.Join(ours, "\n"), strings.Join(theirs, "\n"))
	}
	sh(t, work, podman+`p commit -q c y:1 >/dev/null; p create --name d y:1 true >/dev/null; p mount d >mount2`)
	committed := strings.TrimSpace(sh(t, work, "cat mount2"))
	change, _ := write(t, trees(t, work+"/clean", mounted), LayerOptions{})
	onto := copyOf(t, work+"/clean")
	apply(t, onto, change)
	if got := list(t, trees(t, committed, onto)); got != "" {
		t.Errorf("what podman committed and what we packed differ:\n%s", got)
	}
	sh(t, work, podman+"p umount -a >/dev/null; p rm -a >/dev/null")
}

// TestExport compares the flat tar with GNU tar's.
func TestExport(t *testing.T) {
	need(t, "tar", "setfattr", "getfattr")
	dir := mkBase(t)
	var b bytes.Buffer
	l, err := Export(context.Background(), &b, openDir(t, dir), ExportOptions{})
	if err != nil || l.SkippedCount > 0 {
		t.Fatalf("%+v, %v", l, err)
	}
	to := t.TempDir()
	cmd := exec.Command("tar", "-C", to, "-x", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-p", "-f", "-")
	cmd.Stdin = bytes.NewReader(b.Bytes())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	equal(t, "unpacked by GNU tar", dir, to)
}

// TestExportMounts leaves out what is mounted: the names are there, and empty (row E1). It runs itself in a mount namespace.
func TestExportMounts(t *testing.T) {
	need(t, "unshare", "mount")
	if os.Getenv("TARE_TEST_MOUNTS") == "" {
		cmd := exec.Command("unshare", "-m", os.Args[0], "-test.run", "^TestExportMounts$")
		cmd.Env = append(os.Environ(), "TARE_TEST_MOUNTS=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return
	}
	dir := t.TempDir()
	sh(t, dir, "mkdir proc etc; echo below >etc/hosts; echo secret >../secret; mount -t tmpfs x proc; echo in >proc/in; mount --bind ../secret etc/hosts")
	defer sh(t, dir, "umount proc etc/hosts")
	var b bytes.Buffer
	if _, err := Export(context.Background(), &b, openDir(t, dir), ExportOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(entries(t, b.Bytes()), " "), "5 ./ 5 etc/ 0 etc/hosts 5 proc/"; got != want || bytes.Contains(b.Bytes(), []byte("secret")) {
		t.Errorf("entries %s, want %s", got, want)
	}
	_, err := WriteLayer(context.Background(), &b, trees(t, "", dir), LayerOptions{})
	expect(t, err, "something is mounted there")
}
