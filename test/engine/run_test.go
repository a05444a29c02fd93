package engine

import (
	"archive/tar"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestImageForms(t *testing.T) {
	s := newStore(t)
	d := t.TempDir()
	img := busyboxImage()
	for form, write := range map[string]func(string) error{
		"docker-archive": img.dockerArchive, "oci-archive": img.ociArchive, "oci": img.ociDir,
	} {
		path := filepath.Join(d, form)
		if err := write(path); err != nil {
			t.Fatal(err)
		}
		for _, ref := range []string{form + ":" + path, form + ":" + path + ":" + map[bool]string{true: "test:latest", false: "latest"}[form == "docker-archive"]} {
			r := s.do("run", "--rm", ref).result()
			if r.out != "default command\n" || r.code != 0 {
				t.Errorf("%s: %+v", ref, r)
			}
		}
	}
	if layers, _ := filepath.Glob(filepath.Join(s.root, "layers/sha256/*")); len(layers) != 1 {
		t.Errorf("one layer in three images is unpacked as %v", layers)
	}
	s.empty()
}

func TestFlags(t *testing.T) {
	s := newStore(t)
	d := t.TempDir()
	os.WriteFile(filepath.Join(d, "env"), []byte("# comment\nA=from file\n\nB=b\"q\"\nPASSED\nNOT_THERE_AT_ALL\n  C= c \n"), 0o600)
	os.WriteFile(filepath.Join(d, "file"), []byte("content\n"), 0o644)
	os.Mkdir(filepath.Join(d, "with space"), 0o755)
	t.Setenv("PASSED", "on")
	env := "--env-file " + d + "/env"
	for _, c := range []struct{ options, script, want string }{
		{"", "echo $FROM $PATH", "image /bin"},
		{"-e FROM=me -eX=1 --env=PASSED -e GONE", "echo $FROM $X $PASSED ${GONE-unset}", "me 1 on unset"},
		{env, "echo \"$A|$B|$PASSED|$C|${NOT_THERE_AT_ALL-unset}\"", "from file|b\"q\"|on| c |unset"},
		{env + " -e A=wins", "echo $A", "wins"},
		{"", "echo $HOME", "/root"},
		{"-u alice", "echo $HOME; id -u; id -g; id -G", "/home/alice\n1000\n1000\n1000 10"},
		{"-u 1000:10", "id -u; id -g", "1000\n10"},
		{"-u 4242", "id -u; id -g", "4242\n0"},
		{"-w /tmp", "pwd", "/tmp"},
		{"-w /a/new/one", "pwd", "/a/new/one"},
		{"--hostname box", "hostname; cat /etc/hostname; grep -c 'localhost box' /etc/hosts; echo $HOSTNAME", "box\nbox\n1\nbox"},
		{"-h box", "hostname", "box"},
		{"", "echo $$; hostname | wc -c", "1\n13"},
		{"", "ip -o link | wc -l; ip addr show lo | grep -c 'inet 127.0.0.1'", "1\n1"},
		{"--network none", "ls /sys/class/net", "lo"},
		{"--read-only", "touch /x 2>/dev/null || echo refused; touch /dev/shm/y && echo shm", "refused\nshm"},
		{"", "touch /x && echo written; df -k /dev/shm | tail -1 | awk '{print $2}'", "written\n65536"},
		{"-v " + d + ":/host", "cat /host/file; touch /host/made; stat -c %u /host/made", "content\n0"},
		{"-v " + d + ":/host:ro", "touch /host/x 2>/dev/null || echo refused", "refused"},
		{"-v " + d + "/file:/etc/noexec:ro,z", "cat /etc/noexec", "content"},
		{"-v /anon", "touch /anon/x && ls /anon && mount | grep -c /anon", "x\n1"},
		{"--entrypoint echo", "", "-c"},
		{"--entrypoint=", "echo none", "none"},
	} {
		args := []string{"sh", "-c", c.script}
		if c.options == "--entrypoint echo" {
			args = []string{"-c"}
		}
		r := s.run(strings.Fields(c.options), args...)
		if got := strings.TrimSuffix(r.out, "\n"); got != c.want || r.code != 0 {
			t.Errorf("tare run %s: %s:\ngot  %q (status %d, %s)\nwant %q", c.options, c.script, got, r.code, r.err, c.want)
		}
	}
	if _, err := os.Stat(filepath.Join(d, "made")); err != nil {
		t.Error(err)
	}
	s.empty()
}

func TestEntrypoint(t *testing.T) {
	s := newStore(t)
	img := busyboxImage()
	img.config.Entrypoint, img.config.Cmd = []string{"echo", "entry"}, []string{"cmd"}
	path := filepath.Join(t.TempDir(), "i.tar")
	if err := img.dockerArchive(path); err != nil {
		t.Fatal(err)
	}
	ref := "docker-archive:" + path
	for want, args := range map[string][]string{
		"entry cmd\n":  {ref},
		"entry mine\n": {ref, "mine"},
		"\n":           {"--entrypoint", "echo", ref},
		"new\n":        {"--entrypoint", "echo", ref, "new"},
		"plain\n":      {"--entrypoint", "", ref, "echo", "plain"},
	} {
		if r := s.do("run", append([]string{"--rm"}, args...)...).result(); r.out != want || r.code != 0 {
			t.Errorf("%v: got %+v, want %q", args, r, want)
		}
	}
}

func TestNetworkHost(t *testing.T) {
	s := newStore(t)
	ns, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	host, _ := os.Hostname()
	img := busyboxImage()
	img.layers[0] = append(img.layers[0], tar.Header{Name: "bin/readlink", Typeflag: tar.TypeSymlink, Linkname: "busybox"})
	path := filepath.Join(t.TempDir(), "i.tar")
	if err := img.dockerArchive(path); err != nil {
		t.Fatal(err)
	}
	r := s.do("run", "--rm", "--network=host", "docker-archive:"+path, "sh", "-c", "readlink /proc/self/ns/net; hostname").result()
	if r.out != ns+"\n"+host+"\n" {
		t.Errorf("got %+v, want %s %s", r, ns, host)
	}
}

func TestStdin(t *testing.T) {
	s := newStore(t)
	image := "docker-archive:" + baseImage
	if r := s.do("run", "--rm", "-i", image, "cat").stdin("through").result(); r.out != "through" {
		t.Errorf("with -i: %+v", r)
	}
	if r := s.do("run", "--rm", image, "cat").stdin("through").result(); r.out != "" || r.code != 0 {
		t.Errorf("without -i: %+v", r)
	}
	if r := s.run(nil, "sh", "-c", "echo out; echo err >&2"); r.out != "out\n" || r.err != "err\n" {
		t.Errorf("streams: %+v", r)
	}
}

func TestResolvConf(t *testing.T) {
	s := newStore(t)
	host, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Skip("the machine has no /etc/resolv.conf")
	}
	for name, c := range map[string]struct {
		entries []tar.Header
		want    string
	}{
		"missing":  {nil, string(host)},
		"empty":    {[]tar.Header{file("etc/resolv.conf", "")}, string(host)},
		"own":      {[]tar.Header{file("etc/resolv.conf", "nameserver 192.0.2.1\n")}, "nameserver 192.0.2.1\n"},
		"dangling": {[]tar.Header{{Name: "etc/resolv.conf", Typeflag: tar.TypeSymlink, Linkname: "../run/systemd/resolve/stub-resolv.conf"}}, string(host)},
		"absolute": {[]tar.Header{file("real", "nameserver 192.0.2.2\n"),
			{Name: "etc/resolv.conf", Typeflag: tar.TypeSymlink, Linkname: "/real"}}, "nameserver 192.0.2.2\n"},
	} {
		path := filepath.Join(t.TempDir(), "i.tar")
		if err := busyboxImage().add(c.entries...).dockerArchive(path); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(host), "127.") {
			t.Skip("the machine's resolver is on a loopback address: its file is filtered")
		}
		r := s.do("run", "--rm", "docker-archive:"+path, "cat", "/etc/resolv.conf").result()
		if r.out != c.want || r.code != 0 {
			t.Errorf("%s: got %+v, want %q", name, r, c.want)
		}
	}
}

// The files that tare puts into /etc are only ever mounted inside the container, whatever links an image has there.
func TestEtcOutside(t *testing.T) {
	s := newStore(t)
	canary := filepath.Join(t.TempDir(), "canary")
	os.Mkdir(canary, 0o755)
	img := busyboxImage()
	img.layers[0] = img.layers[0][:0:0]
	for _, h := range busyboxImage().layers[0] {
		if !strings.HasPrefix(h.Name, "etc/") {
			img.layers[0] = append(img.layers[0], h)
		}
	}
	img.layers[0] = append(img.layers[0], tar.Header{Name: "etc", Typeflag: tar.TypeSymlink, Linkname: "../../../../../../.." + canary})
	path := filepath.Join(t.TempDir(), "i.tar")
	if err := img.dockerArchive(path); err != nil {
		t.Fatal(err)
	}
	r := s.do("run", "--rm", "docker-archive:"+path, "cat", "/etc/hostname").result()
	if r.code == 0 && len(strings.TrimSpace(r.out)) != 12 {
		t.Errorf("%+v", r)
	}
	if left, _ := os.ReadDir(canary); len(left) > 0 {
		t.Errorf("files appeared outside: %v", left)
	}
}

func TestImageVolumes(t *testing.T) {
	s := newStore(t)
	img := busyboxImage().add(
		tar.Header{Name: "data/", Typeflag: tar.TypeDir, Mode: 0o750, Uid: 1000, Gid: 10},
		file("data/seed", "from the image\n"), dir("data/sub/"),
		tar.Header{Name: "data/sub/link", Typeflag: tar.TypeSymlink, Linkname: "../seed"},
		tar.Header{Name: "var", Typeflag: tar.TypeSymlink, Linkname: "/data"},
	)
	img.config.Volumes = map[string]struct{}{"/data": {}, "/fresh": {}}
	path := filepath.Join(t.TempDir(), "i.tar")
	if err := img.dockerArchive(path); err != nil {
		t.Fatal(err)
	}
	script := "cat /data/sub/link; stat -c '%u %g %a' /data; touch /data/new /fresh/new && ls /data /fresh; mount | grep -c -E ' /(data|fresh) '"
	r := s.do("run", "--rm", "--read-only", "docker-archive:"+path, "sh", "-c", script).result()
	want := "from the image\n1000 10 750\n/data:\nnew\nseed\nsub\n\n/fresh:\nnew\n2\n"
	if r.out != want || r.code != 0 {
		t.Errorf("got %+v\nwant %q", r, want)
	}
	host := t.TempDir()
	r = s.do("run", "--rm", "-v", host+":/data", "docker-archive:"+path, "ls", "/data").result()
	if r.out != "" || r.code != 0 {
		t.Errorf("the user's volume in place of the image's: %+v", r)
	}
}

func TestLayers(t *testing.T) {
	s := newStore(t)
	img := busyboxImage().
		add(dir("d/"), file("d/a", "1"), file("d/b", "1"), dir("opaque/"), file("opaque/old", "")).
		add(file("d/.wh.a", ""), file("d/b", "2"), file("opaque/.wh..wh..opq", ""), file("opaque/new", "")).
		add(tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "d/b"}, file("under/file", "x")).
		add(tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o711})
	path := filepath.Join(t.TempDir(), "i.tar")
	if err := img.dockerArchive(path); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r := s.do("run", "--rm", "docker-archive:"+path, "sh", "-c", "ls -d /d/* /opaque/*; cat /d/b /hard /under/file; stat -c %a /").result()
		if want := "/d/b\n/opaque/new\n22x711\n"; r.out != want || r.code != 0 {
			t.Errorf("got %+v, want %q", r, want)
		}
	}
	none := &testImage{}
	path = filepath.Join(t.TempDir(), "none.tar")
	if err := none.dockerArchive(path); err != nil {
		t.Fatal(err)
	}
	r := s.do("run", "--rm", "-v", "/bin/busybox:/busybox", "docker-archive:"+path, "/busybox", "echo", "no layers").result()
	if r.out != "no layers\n" {
		t.Errorf("an image without layers: %+v", r)
	}
	s.empty()
}

func TestNamesPsRm(t *testing.T) {
	s := newStore(t)
	image := "docker-archive:" + baseImage
	if r := s.do("run", "--name", "kept", image, "sh", "-c", "touch /made; exit 7").result(); r.code != 7 {
		t.Fatalf("%+v", r)
	}
	r := s.do("run", "--name", "kept", image, "true").result()
	if r.code != 125 || !strings.HasPrefix(r.err, "tare: name kept is in use by container ") {
		t.Errorf("a name that is taken: %+v", r)
	}
	var list []struct {
		ID, Name, State string
		ExitCode        *int
		Args            []string
	}
	r = s.do("ps", "-a", "--json").result()
	if err := json.Unmarshal([]byte(r.out), &list); err != nil || len(list) != 1 {
		t.Fatalf("ps: %v %+v", err, r)
	}
	c := list[0]
	if c.Name != "kept" || c.State != "exited" || c.ExitCode == nil || *c.ExitCode != 7 || len(c.Args) != 3 {
		t.Errorf("ps: %s", r.out)
	}
	if _, err := os.Stat(filepath.Join(s.root, "containers", c.ID, "upper/made")); err != nil {
		t.Error(err)
	}
	if r := s.do("ps").result(); strings.Count(r.out, "\n") != 1 {
		t.Errorf("ps without -a lists what has ended: %s", r.out)
	}
	if r := s.do("ps", "-a").result(); !strings.Contains(r.out, "kept") || !strings.Contains(r.out, "exited (7)") {
		t.Errorf("ps -a: %s", r.out)
	}
	if r := s.do("rm", "other").result(); r.code != 1 || r.err != "tare: no such container: other\n" {
		t.Errorf("rm of nothing: %+v", r)
	}
	if r := s.do("rm", "-f", "other").result(); r.code != 0 {
		t.Errorf("rm -f of nothing: %+v", r)
	}
	if r := s.do("rm", c.ID[:8]).result(); r.code != 0 {
		t.Errorf("rm: %+v", r)
	}
	s.empty()
}

func TestRemoveRunning(t *testing.T) {
	s := newStore(t)
	for _, options := range [][]string{{"--name", "a"}, {"--name", "a", "--rm"}} {
		c, _ := s.up(options, "sh", "-c", "echo up; sleep 1000")
		if out := s.do("ps").result().out; !strings.Contains(out, "running") {
			t.Errorf("ps: %s", out)
		}
		if r := s.do("rm", "a").result(); r.code != 1 || !strings.Contains(r.err, "is running") {
			t.Errorf("rm of a running container: %+v", r)
		}
		if r := s.do("rm", "-f", "a").result(); r.code != 0 {
			t.Errorf("rm -f of a running container: %+v", r)
		}
		if r := c.wait(); r.code != 137 {
			t.Errorf("killed by rm -f: %+v", r)
		}
		s.empty()
	}
}
