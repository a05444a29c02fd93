package diff

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tare-oci/tare/image/layer"
)

// sh runs a script in dir.
func sh(t *testing.T, dir, script string) string {
	t.Helper()
	cmd := exec.Command("bash", "-euc", script)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", script, err, out, stderr.Bytes())
	}
	return string(out)
}

// need skips a test that needs a program or rights that are not here.
func need(t *testing.T, tools ...string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("owners, devices and trusted attributes need root")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("peer is not installed: %v", err)
		}
	}
}

func openDir(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// trees are two directories to compare.
func trees(t *testing.T, lower, upper string) Input {
	t.Helper()
	in := Input{Upper: openDir(t, upper)}
	if lower != "" {
		in.Lower = []*os.File{openDir(t, lower)}
	}
	return in
}

// list returns changes as docker diff shows them.
func list(t *testing.T, in Input) string {
	t.Helper()
	changes, err := Changes(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, c := range changes {
		b.WriteString(c.Kind.String() + " " + c.Path + "\n")
	}
	return b.String()
}

// write writes a layer.
func write(t *testing.T, in Input, o LayerOptions) ([]byte, Layer) {
	t.Helper()
	var b bytes.Buffer
	l, err := WriteLayer(context.Background(), &b, in, o)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), l
}

// apply unpacks a layer onto a directory.
func apply(t *testing.T, dir string, data []byte) {
	t.Helper()
	result, err := layer.Unpack(context.Background(), openDir(t, dir), bytes.NewReader(data), layer.Options{Whiteouts: layer.InPlace})
	if err != nil || len(result.Skipped) > 0 {
		t.Fatalf("unpack: %v, %q", err, result.Skipped)
	}
}

// equal fails unless two trees are the same to the byte, their roots' times left out.
func equal(t *testing.T, what, a, b string) {
	t.Helper()
	in := trees(t, a, b)
	in.Content = true
	if got := list(t, in); got != "" {
		t.Errorf("%s: the trees differ:\n%s", what, got)
	}
	// A second opinion that shares no code, without directories' times.
	format := `find . -mindepth 1 \( -type d -printf '%p %M %U %G\n' \) -o -mindepth 1 -printf '%p %M %U %G %T@ %s %n %l\n' | sort; find . -type f -print0 | sort -z | xargs -0 -r sha256sum; getfattr -Rhd -m - . | sed 's/^# file: //' | sort`
	if x, y := sh(t, a, format), sh(t, b, format); x != y {
		t.Errorf("%s: find and getfattr see\n%s\nand\n%s", what, x, y)
	}
}

// entries returns a tar's entries: type, name and link.
func entries(t *testing.T, data []byte) []string {
	t.Helper()
	var found []string
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		text := string(h.Typeflag) + " " + h.Name
		if h.Linkname != "" {
			text += " > " + h.Linkname
		}
		found = append(found, text)
	}
}

// base makes a tree with a file of every kind.
const base = `
mkdir -p etc bin var/log/deep dir/keep dir/gone empty
echo passwd >etc/passwd; echo shadow >etc/shadow; chmod 640 etc/shadow; chown 0:42 etc/shadow
printf '#!/bin/sh\n' >bin/su; chmod 4755 bin/su; ln bin/su bin/su2; ln -s su bin/link; ln -s /nowhere bin/dangling
setfattr -n user.note -v 'a=b' etc/passwd; setfattr -n trusted.note -v t etc; setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 bin/su
mknod dir/null c 1 3; mknod dir/loop b 7 0; mkfifo dir/fifo; chmod 1777 empty; chown 1000:1001 empty
echo x >dir/keep/x; echo y >dir/gone/y; truncate -s 100000 var/sparse; echo log >var/log/deep/log
touch -d '2020-01-02 03:04:05.123456789' etc/passwd; touch -h -d '2001-01-01 00:00:00' bin/link
touch "$(printf 'dir/name\nwith\001bytes\377')" "dir/$(printf 'n%.0s' $(seq 250))"
find . -depth -name '*' -newer etc/passwd ! -path ./etc/passwd -exec touch -h -d '2021-05-06 07:08:09.5' {} +
touch -d '2020-01-02 03:04:05.123456789' etc/passwd
`

// changeBase changes a base tree in every way.
const changeBase = `
echo more >>etc/passwd; chmod 600 etc/shadow; rm -r dir/gone; echo new >dir/new; rm bin/link; ln -s other bin/link
rm var/log/deep/log; mkdir var/log/deep/log; echo in >var/log/deep/log/in   # a file becomes a directory
rm -r dir/keep; echo file >dir/keep                                          # a directory becomes a file
ln bin/su bin/su3; setfattr -x user.note etc/passwd; setfattr -n user.x -v y etc/shadow; mkdir -p a/b/c; echo z >a/b/c/z; ln a/b/c/z a/z2
rm dir/null; mknod dir/null c 1 5; chown 7:8 empty; rm dir/fifo
`

func mkBase(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "base")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	sh(t, dir, base)
	return dir
}

// copyOf returns a copy of a tree.
func copyOf(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	sh(t, ".", "cp -a "+dir+" "+to)
	return to
}
