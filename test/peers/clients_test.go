package peers

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/opencontainers/image-spec/specs-go/v1"
)

// secure says that the registry has TLS, by a certificate that SSL_CERT_FILE vouches for, and wants credentials, which are in
// Docker's config.json.
var secure bool

// plain returns the options that a client needs for a registry without TLS.
func plain(options ...string) []string {
	if secure {
		return nil
	}
	return options
}

// cmd puts a command line together from words and lists of words.
func cmd(parts ...any) []string {
	var argv []string
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			argv = append(argv, p)
		case []string:
			argv = append(argv, p...)
		}
	}
	return argv
}

// client is one of the programs that talk to registries.
type client struct {
	name  string
	needs []string
	index bool // it copies a whole index
	// push brings the image NAME of the layout to the reference HOST:PORT/REPO:TAG.
	push func(t *testing.T, layout, name, ref string) error
	// pull fetches the reference and checks that it got d: in a layout, or by what the client says.
	pull func(t *testing.T, ref string, d v1.Descriptor)
}

// layoutPull is pull of the clients that write a layout.
func layoutPull(argv func(ref, dir string) []string) func(*testing.T, string, v1.Descriptor) {
	return func(t *testing.T, ref string, d v1.Descriptor) {
		dir := filepath.Join(t.TempDir(), "layout")
		do(t, argv(ref, dir)...)
		holds(t, dir, d)
	}
}

func run(argv ...string) error {
	_, err := try(argv...)
	return err
}

var digestText = regexp.MustCompile(`sha256:[0-9a-f]{64}`)

func clients() []client {
	return []client{
		{name: "tare", index: true,
			push: func(t *testing.T, layout, name, ref string) error {
				return run("tare", "copy", "--all", "oci:"+layout+":"+name, "docker://"+ref)
			},
			pull: layoutPull(func(ref, dir string) []string {
				return []string{"tare", "copy", "--all", "docker://" + ref, "oci:" + dir + ":1"}
			})},
		{name: "skopeo", needs: []string{"skopeo"}, index: true,
			push: func(t *testing.T, layout, name, ref string) error {
				return run(cmd("skopeo", "copy", "-q", "--all", "--preserve-digests", plain("--dest-tls-verify=false"), "oci:"+layout+":"+name, "docker://"+ref)...)
			},
			pull: layoutPull(func(ref, dir string) []string {
				return cmd("skopeo", "copy", "-q", "--all", "--preserve-digests", plain("--src-tls-verify=false"), "docker://"+ref, "oci:"+dir+":1")
			})},
		{name: "crane", needs: []string{"crane"},
			push: func(t *testing.T, layout, name, ref string) error {
				// crane takes a layout with one image.
				dir := filepath.Join(t.TempDir(), "one")
				if err := run("skopeo", "copy", "-q", "--all", "--preserve-digests", "oci:"+layout+":"+name, "oci:"+dir+":1"); err != nil {
					return err
				}
				return run(cmd("crane", "push", plain("--insecure"), dir, ref)...)
			},
			pull: layoutPull(func(ref, dir string) []string {
				return cmd("crane", "pull", plain("--insecure"), "--format", "oci", ref, dir)
			})},
		{name: "regctl", needs: []string{"regctl"}, index: true,
			push: func(t *testing.T, layout, name, ref string) error {
				return run(cmd("regctl", plain("--host", "reg="+host(ref)+",tls=disabled"), "image", "copy", "ocidir://"+layout+":"+name, ref)...)
			},
			pull: layoutPull(func(ref, dir string) []string {
				return cmd("regctl", plain("--host", "reg="+host(ref)+",tls=disabled"), "image", "copy", ref, "ocidir://"+dir+":1")
			})},
		{name: "oras", needs: []string{"oras"}, index: true,
			push: func(t *testing.T, layout, name, ref string) error {
				return run(cmd("oras", "cp", "--from-oci-layout", plain("--to-plain-http"), layout+":"+name, ref)...)
			},
			pull: layoutPull(func(ref, dir string) []string {
				return cmd("oras", "cp", plain("--from-plain-http"), "--to-oci-layout", ref, dir+":1")
			})},
		podman, containerd,
	}
}

func host(ref string) string { return ref[:strings.Index(ref, "/")] }

// podman keeps an image's manifest as it was; its storage is private to the suite.
var podman = client{name: "podman", needs: []string{"podman"},
	push: func(t *testing.T, layout, name, ref string) error {
		return fmt.Errorf("podman compresses layers anew: its push has other digests")
	},
	pull: func(t *testing.T, ref string, d v1.Descriptor) {
		p := podmanArgs()
		defer run(append(p, "rmi", "-f", ref)...)
		do(t, cmd(p, "pull", "-q", plain("--tls-verify=false"), ref)...)
		out := do(t, append(p, "image", "inspect", "--format", "{{.Digest}}", ref)...)
		if strings.TrimSpace(out) != d.Digest.String() {
			t.Errorf("podman has %s, want %s", out, d.Digest)
		}
	}}

func podmanArgs() []string {
	dir := filepath.Join(suiteDir, "podman")
	return []string{"podman", "--root", dir + "/root", "--runroot", dir + "/run", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"}
}

var containerd = client{name: "ctr", needs: []string{"ctr", "containerd"},
	push: func(t *testing.T, layout, name, ref string) error {
		c := ctr(t)
		tarball := filepath.Join(t.TempDir(), "image.tar")
		if err := run("skopeo", "copy", "-q", "--preserve-digests", "oci:"+layout+":"+name, "oci-archive:"+tarball+":"+ref); err != nil {
			return err
		}
		if err := run(append(c, "images", "import", "--snapshotter", "native", tarball)...); err != nil {
			return err
		}
		defer run(append(c, "images", "rm", ref)...)
		return run(cmd(c, "images", "push", ctrAccess(), ref)...)
	},
	pull: func(t *testing.T, ref string, d v1.Descriptor) {
		c := ctr(t)
		defer run(append(c, "images", "rm", "--sync", ref)...)
		do(t, cmd(c, "images", "pull", ctrAccess(), "--snapshotter", "native", ref)...)
		out := do(t, append(c, "images", "ls", "name=="+ref)...)
		if found := digestText.FindString(out); found != d.Digest.String() {
			t.Errorf("containerd has %s, want %s\n%s", found, d.Digest, out)
		}
	}}

// ctrAccess is how ctr, which reads no configuration of Docker's, gets at the registry.
func ctrAccess() []string {
	if secure {
		return []string{"--user", user + ":" + password, "--hosts-dir", filepath.Join(os.Getenv("DOCKER_CONFIG"), "hosts")}
	}
	return []string{"--plain-http"}
}

// ctr starts a containerd of the suite's own, once.
func ctr(t *testing.T) []string {
	t.Helper()
	dir := filepath.Join(suiteDir, "containerd")
	sock := filepath.Join(dir, "sock")
	if started["containerd"] == "" {
		config := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n[grpc]\naddress = %q\n[ttrpc]\naddress = %q\n",
			dir+"/root", dir+"/state", sock, sock+".ttrpc")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/config.toml", []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		serve(t, sock, "containerd", "--config", dir+"/config.toml")
		started["containerd"] = sock
	}
	return []string{"ctr", "--address", sock, "-n", "peers"}
}
