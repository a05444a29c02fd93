package images

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestRemove keeps what a container needs, and removes what nothing does.
func TestRemove(t *testing.T) {
	b := newBox(t)
	name := b.seed("one")
	b.ok("pull -q " + name)
	b.ok("tag " + name + " second")
	b.ok("run --name c "+name, "touch", "/made")
	if out := b.ok("rmi second"); out != "Untagged: second:latest" {
		t.Errorf("rmi wrote %q", out)
	}
	b.fails(1, "is used by container c, which is exited", "rmi "+name)
	want := digest.FromString(rawOf(b, name)).String()
	var why [][]struct{ Kind, Name string }
	if err := json.Unmarshal([]byte(b.ok("why --json "+want)), &why); err != nil || len(why) != 2 {
		t.Errorf("why: %v, %v", why, err)
	}
	if out := b.ok("why " + want); !strings.Contains(out, "name "+name+" → manifest "+want) || !strings.Contains(out, "lease container ") {
		t.Errorf("why wrote %q", out)
	}
	b.ok("rmi -f " + name)
	if out := b.ok("images -q"); out != "" {
		t.Errorf("images: %q", out)
	}
	b.ok("prune -f -a")
	if out := b.ok("diff c"); !strings.HasSuffix(out, "A /made") {
		t.Errorf("the container's layers are gone: diff wrote %q", out)
	}
	b.ok("rm c")
	dry := b.prune("--dry-run")
	before := b.usage()
	real := b.prune("")
	if dry.Bytes != real.Bytes || len(dry.Deleted) != 6 || len(real.Deleted) != 6 || len(real.Layers) != 4 || b.usage() >= before {
		t.Errorf("dry run %+v, then %+v", dry, real)
	}
	if blobs, err := filepath.Glob(b.root + "/store/blobs/sha256/*"); err != nil || len(blobs) > 0 {
		t.Errorf("left: %v, %v", blobs, err)
	}
	if left, err := filepath.Glob(b.root + "/layers/sha256/*"); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	b.fails(1, "not found in the store", "rmi "+name)
	b.ok("rmi -f " + name)
}

type pruned struct {
	Deleted, Layers []string
	Bytes           int64
}

func (b *box) prune(option string) pruned {
	b.t.Helper()
	var p pruned
	if err := json.Unmarshal([]byte(b.ok("prune --json "+option)), &p); err != nil {
		b.t.Fatal(err)
	}
	return p
}

// usage returns how many bytes the root directory takes.
func (b *box) usage() (n int64) {
	filepath.Walk(b.root, func(_ string, info os.FileInfo, err error) error {
		if err == nil {
			n += info.Size()
		}
		return nil
	})
	return n
}

// TestFsck finds what is broken, and fetches it again from where it came from.
func TestFsck(t *testing.T) {
	b := newBox(t)
	name := b.seed("one")
	b.ok("pull -q --no-unpack " + name)
	blobs, err := filepath.Glob(b.root + "/store/blobs/sha256/*")
	if err != nil || len(blobs) != 6 {
		t.Fatal(blobs, err)
	}
	if err := os.Truncate(blobs[0], 1); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(blobs[1]); err != nil {
		t.Fatal(err)
	}
	r := b.run("fsck")
	if r.code != 1 || !strings.Contains(r.err, "the store is damaged") {
		t.Errorf("fsck: status %d, %q %q", r.code, r.out, r.err)
	}
	if out := b.ok("fsck --repair"); !strings.Contains(out, "repaired") {
		t.Errorf("fsck --repair wrote %q", out)
	}
	b.ok("fsck")
	if out := b.ok("run --rm --pull never "+name, "cat", "/etc/release"); out != "one" {
		t.Errorf("run wrote %q", out)
	}
}

// TestMake makes images of containers and of tar files, and says how images differ.
func TestMake(t *testing.T) {
	b := newBox(t)
	name := b.seed("one")
	b.ok("run -q --name c "+name, "sh", "-c", "echo new > /etc/new; rm /etc/release; ln -s x /link")
	out := b.ok("diff c") // and nothing of what was mounted
	for _, line := range []string{"A /etc/new", "D /etc/release", "A /link", "C /etc"} {
		if !strings.Contains(out+"\n", line+"\n") {
			t.Errorf("diff: no %q in %q", line, out)
		}
	}
	if n := strings.Count(out, "\n"); n != 3 {
		t.Errorf("diff has %d lines more than 4: %q", n-3, out)
	}
	b.env = append(b.env, "SOURCE_DATE_EPOCH=1700000000")
	id := b.ok("commit -m why -c", `CMD ["cat","/etc/new"]`, "c", "made:1")
	if again := b.ok("commit -m why -c", `CMD ["cat","/etc/new"]`, "c", "made:2"); again != id || !strings.HasPrefix(id, "sha256:") {
		t.Errorf("the same changes gave %s, then %s", id, again)
	}
	if out := b.ok("run --rm --pull never made:1"); out != "new" {
		t.Errorf("run wrote %q", out)
	}
	if out := b.ok("history made:1"); !strings.Contains(out, "why") || strings.Count(out, "\n") != 5 {
		t.Errorf("history: %s", out)
	}
	r := b.run("diff " + name + " made:1")
	if r.code != 1 || !strings.Contains(r.out, "config.Cmd") {
		t.Errorf("diff: status %d, %s", r.code, r.out)
	}
	b.ok("export -o "+b.dir+"/files.tar", "c")
	list := b.peer("tar", "tf", b.dir+"/files.tar")
	if strings.Contains(list, "release") || !strings.Contains(list, "etc/new") || !strings.Contains(list, "opt/random") {
		t.Errorf("export: %s", list)
	}
	b.ok("import -c", "CMD cat /etc/new", b.dir+"/files.tar", "imported")
	if out := b.ok("run --rm --pull never -e PATH=/bin imported"); out != "new" {
		t.Errorf("run wrote %q", out)
	}
	zstd := b.ok("convert", name, "smaller")
	if out := b.ok("inspect smaller"); !strings.Contains(out, "tar+zstd") || !strings.Contains(out, zstd) {
		t.Errorf("inspect: %s", out)
	}
	if out := b.ok("run --rm --pull never smaller", "cat", "/etc/release"); out != "one" {
		t.Errorf("run wrote %q", out)
	}
	b.peer("skopeo", "copy", "-q", "oci:"+b.root+"/store:docker.io/library/made:1", "dir:"+b.dir+"/made")
	b.ok("fsck")
}

// TestMount shows an image on a directory, or to one command.
func TestMount(t *testing.T) {
	b := newBox(t)
	name := b.seed("one")
	dir := filepath.Join(b.dir, "a place")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r := b.command(nil, "unshare", "-m", "sh", "-ec", fmt.Sprintf(`%[1]s mount --root %[2]s --progress none %[3]s "$1"; cat "$1/etc/release"
		touch "$1/x" 2>/dev/null && echo written; %[1]s prune --root %[2]s -f >/dev/null; %[1]s rmi -f --root %[2]s %[3]s >/dev/null; cat "$1/etc/release"
		%[1]s umount --root %[2]s "$1"; ls "$1"`, tare, b.root, name), "sh", dir)
	if r.code != 0 || r.out != dir+"\none\none\n" {
		t.Errorf("status %d, %q %q", r.code, r.out, r.err)
	}
	b.fails(1, "no image is mounted there", "umount /")
	r = b.run("mount --progress none "+name, "--", "sh", "-c", "cat etc/release; echo mine > etc/release; cat $TARE_MOUNT/etc/release; exit 3")
	if r.code != 3 || r.out != "one\nmine\n" {
		t.Errorf("status %d, %q %q", r.code, r.out, r.err)
	}
	if out := b.ok("run --rm "+name, "cat", "/etc/release"); out != "one" {
		t.Errorf("the image has changed: %q", out)
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(mounts), b.root) {
		t.Errorf("left on the host: %v", err)
	}
}

// TestLogin keeps a credential only if the registry takes it, and sends it to nobody else.
func TestLogin(t *testing.T) {
	b := newBox(t)
	file := filepath.Join(suiteDir, "htpasswd")
	if err := os.WriteFile(file, []byte(b.peer("htpasswd", "-Bbn", "alice", "secret")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := startRegistry("auth: {htpasswd: {realm: here, path: " + file + "}}\n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.stop)
	name := r.host + "/private/one:1"
	b.peer("skopeo", "copy", "-q", "--dest-tls-verify=false", "--dest-creds=alice:secret", "oci:"+layout+":one", "docker://"+name)
	b.fails(1, "401", "pull -q "+name)
	config := b.dir + "/docker/config.json"
	wrong := b.input(strings.NewReader("wrong\n"), "login -u alice --password-stdin "+r.host)
	if _, err := os.Stat(config); wrong.code != 1 || err == nil {
		t.Errorf("a wrong password: status %d, %s", wrong.code, wrong.err)
	}
	if in := b.input(strings.NewReader("secret\n"), "login -u alice --password-stdin "+r.host); in.code != 0 || !strings.Contains(in.out, "Login Succeeded") {
		t.Fatalf("login: status %d, %s", in.code, in.err)
	}
	if info, err := os.Stat(config); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	b.ok("pull -q " + name)
	if out := b.run("pull -q --explain " + name).err; !strings.Contains(out, config) || strings.Contains(out, "secret") {
		t.Errorf("explain: %s", out)
	}
	b.peer("skopeo", "inspect", "--tls-verify=false", "--authfile", config, "docker://"+name)
	b.ok("logout " + r.host)
	b.fails(1, "401", "pull -q "+name)
	if out := b.ok("logout " + r.host); !strings.HasPrefix(out, "Not logged in") {
		t.Errorf("the second logout wrote %q", out)
	}
}

// TestRootless moves images as another user than root; only running containers needs root.
func TestRootless(t *testing.T) {
	b := newBox(t)
	name := b.seed("one")
	home, err := os.MkdirTemp(suiteDir, "home-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(home, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(suiteDir, "tare") // the tree may be closed to others
	b.peer("cp", tare, bin)
	do := func(args ...string) result {
		cmd := exec.Command(bin, args...)
		cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "XDG_DATA_HOME=" + home + "/data"}
		cmd.Dir = home
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		var out, errs strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &errs
		err := cmd.Run()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
	}
	for _, args := range [][]string{
		{"pull", "-q", name}, {"tag", name, "mine"}, {"save", "-o", "x.tar", "mine"}, {"rmi", "mine"}, {"load", "-q", "-i", "x.tar"},
		{"copy", "-q", "store:mine", "oci:lay:x"}, {"copy", "-q", "oci:lay:x", "docker://" + host + "/rootless/x:1"}, {"fsck"}, {"prune", "-f", "-a"},
	} {
		if r := do(args...); r.code != 0 {
			t.Errorf("%q: status %d, %s", args, r.code, r.err)
		}
	}
	if r := do("run", "--rm", name, "true"); r.code != 125 || !strings.Contains(r.err, "as another user than root") {
		t.Errorf("run: status %d, %s", r.code, r.err)
	}
	if _, err := os.Stat(home + "/data/tare/store/index.json"); err != nil {
		t.Error(err)
	}
}

// TestUsage refuses with a sentence what it cannot do.
func TestUsage(t *testing.T) {
	b := newBox(t)
	b.fails(125, "NAME is missing", "pull")
	b.fails(125, "unknown option --nope", "pull --nope")
	b.fails(125, "templates are not supported: --json", "images --format {{json}}")
	b.fails(125, "takes FROM and TO", "copy x")
	b.fails(1, "say docker://alpine for the registry's or store:alpine for the local one", "copy alpine store:x")
	b.fails(1, "lower-case", "pull -q "+host+"/Upper")
	b.fails(1, "not found", "inspect nothing")
	b.fails(1, "no such container", "export -o /dev/null nothing")
	b.fails(125, "not fetched from URLs", "import http://x/y.tar")
	b.fails(125, `unknown command "lx" (tare image --help lists them)`, "image lx")
	if r := b.command(nil, tare, "image", "--help"); r.code != 0 || !strings.Contains(r.out, "prune") {
		t.Errorf("image --help: %+v", r)
	}
	for _, c := range []string{"pull", "push", "copy", "save", "load", "images", "inspect", "history", "tag", "rmi", "prune", "why", "fsck", "commit", "export",
		"import", "convert", "diff", "mount", "umount", "login", "logout", "search", "completion"} {
		if r := b.command(nil, tare, c, "--help"); r.code != 0 || !strings.HasPrefix(r.out, "Usage: tare "+c+" ") {
			t.Errorf("%s --help: %+v", c, r)
		}
	}
}

// TestCompletion completes words in bash as a user types them.
func TestCompletion(t *testing.T) {
	b := newBox(t)
	b.ok("copy -q oci:" + layout + ":one store:some/thing:v1")
	for line, want := range map[string]string{
		"tare pul":                                          "pull",
		"tare image hist":                                   "history",
		"tare run --pla":                                    "--platform",
		"tare rmi --root " + b.root + " some":               "some/thing:v1",
		"tare rmi --root " + b.root + " some/thing:":        "v1",
		"tare pull --platform ":                             "",
		"tare run --root " + b.root + " some/thing:v1 --pl": "",
	} {
		script := `source <("$1" completion bash); COMP_LINE=$2; COMP_POINT=${#2}; _tare; echo "${COMPREPLY[*]}"`
		cmd := exec.Command("bash", "-c", script, "bash", tare, line)
		cmd.Env = append(b.env, "PATH="+filepath.Dir(tare)+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", line, got, err, want)
		}
	}
	for _, shell := range []string{"zsh", "fish"} {
		if out := b.command(nil, tare, "completion", shell).out; !strings.Contains(out, "__complete") {
			t.Errorf("%s: %q", shell, out)
		}
	}
	if r := b.command(nil, tare, "completion", "tcsh"); r.code != 125 || !strings.Contains(r.err, "takes one of bash, zsh and fish") {
		t.Errorf("tcsh: %+v", r)
	}
}
