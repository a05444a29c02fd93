// Package bundle turns an image's configuration into a runtime bundle's config.json, by the rules of the image specification's
// conversion.md, on top of a default configuration with the limits that docker's containers have.
//
// The image comes from anybody. It decides what runs, as whom and where inside the container, and its labels become annotations;
// it does not decide anything about the host: no mount, device, capability, hook or resource comes from it (Volumes only lists
// what it asks for), and labels that some runtime takes as orders are left out.
package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/atomicfile"
	"github.com/tare-oci/tare/internal/sys/fsat"
)

// Input of Spec. What the user asks for wins over what the image says.
type Input struct {
	Image v1.Image
	Root  *os.File // the unpacked root filesystem, for names in /etc/passwd and /etc/group; it stays the caller's
	// Entrypoint, if not nil, replaces the image's entry point and drops its command; empty: there is none.
	Entrypoint []string
	Args       []string // if not empty, replaces the image's command
	Env        []string // NAME=VALUE, replaces or adds to the image's
	Cwd        string   // absolute; empty: the image's
	User       string   // user[:group] by name or number; empty: the image's
	Hostname   string
	Terminal   bool
	ReadOnly   bool // root filesystem
}

// Spec makes the runtime configuration of a container of the image, with the root filesystem in "rootfs" of the bundle.
func Spec(in Input) (*specs.Spec, error) {
	c := in.Image.Config
	user, home, err := lookupUser(in.Root, first(in.User, c.User))
	if err != nil {
		return nil, err
	}
	args, err := arguments(in)
	if err != nil {
		return nil, err
	}
	env, err := environment(c.Env, in.Env, home)
	if err != nil {
		return nil, err
	}
	cwd := first(in.Cwd, c.WorkingDir)
	if !path.IsAbs(cwd) {
		if in.Cwd != "" {
			return nil, fmt.Errorf("working directory %q is not an absolute path", in.Cwd)
		}
		cwd = path.Join("/", cwd)
	}
	for _, s := range append(slices.Concat(args, env), cwd) {
		if strings.IndexByte(s, 0) >= 0 {
			return nil, fmt.Errorf("argument, variable or working directory %q has a zero byte", s)
		}
	}
	s := defaults(user.UID)
	s.Process.User, s.Process.Args, s.Process.Env, s.Process.Cwd = user, args, env, cwd
	s.Process.Terminal = in.Terminal
	s.Hostname = in.Hostname
	s.Root.Readonly = in.ReadOnly
	s.Annotations = annotations(in.Image)
	return s, nil
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// arguments follows rule CV3, and like systemd-nspawn starts the image's init where the image names no command.
func arguments(in Input) ([]string, error) {
	entrypoint, args := in.Image.Config.Entrypoint, in.Image.Config.Cmd
	if in.Entrypoint != nil {
		entrypoint, args = in.Entrypoint, nil
	}
	if len(in.Args) > 0 {
		args = in.Args
	}
	if all := slices.Concat(entrypoint, args); len(all) > 0 {
		return all, nil
	}
	inits := []string{"/sbin/init", "/usr/sbin/init"}
	for _, name := range inits {
		st, err := fsat.StatInRoot(in.Root, name)
		if err == nil && st.IsRegular() && st.Mode&0o111 != 0 {
			return []string{name}, nil
		}
	}
	return nil, fmt.Errorf("no command: neither the image nor the command line names one, and the image has no %s", strings.Join(inits, " or "))
}

// defaultPath is what docker gives an image that sets no PATH.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment keeps the image's variables as they are (CV2), except those without a value: they would mean "the host's" to
// some tools (CVE-2026-57231).
func environment(image, user []string, home string) ([]string, error) {
	var env []string
	for _, v := range image {
		if i := strings.IndexByte(v, '='); i > 0 {
			env = append(env, v)
		}
	}
	for _, v := range user {
		name, _, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("environment variable %q is not NAME=VALUE", v)
		}
		env = slices.DeleteFunc(env, func(old string) bool { return strings.HasPrefix(old, name+"=") })
		env = append(env, v)
	}
	for _, v := range []string{defaultPath, "HOME=" + home} {
		name, _, _ := strings.Cut(v, "=")
		if !slices.ContainsFunc(env, func(old string) bool { return strings.HasPrefix(old, name+"=") }) {
			env = append(env, v)
		}
	}
	return env, nil
}

// orders are prefixes of annotations by which callers, never images, give runtimes orders: systemd unit properties (runc,
// crun), handlers, hooks and checkpoints (crun, podman), virtual machines (kata, gVisor), and tare's own.
var orders = []string{
	"org.systemd.property.", "run.oci.", "org.criu.", "module.wasm.", "io.katacontainers.", "dev.gvisor.", "io.crun.", "krun.",
	"io.podman.annotations.", "io.container.manager", "io.containers.", "io.kubernetes.cri", "cdi.k8s.io/", "tare.", "org.tare-oci.",
}

// annotations follows CV4, CV5 and CV8: a label wins over what a field of the configuration says.
func annotations(image v1.Image) map[string]string {
	a := map[string]string{}
	const prefix = "org.opencontainers.image."
	set := func(name, value string) {
		if value != "" {
			a[prefix+name] = value
		}
	}
	set("os", image.OS)
	set("architecture", image.Architecture)
	set("variant", image.Variant)
	set("os.version", image.OSVersion)
	set("os.features", strings.Join(image.OSFeatures, ","))
	set("author", image.Author)
	if image.Created != nil {
		set("created", image.Created.Format(time.RFC3339Nano))
	}
	set("stopSignal", image.Config.StopSignal)
	ports := make([]string, 0, len(image.Config.ExposedPorts))
	for p := range image.Config.ExposedPorts {
		ports = append(ports, p)
	}
	slices.Sort(ports)
	set("exposedPorts", strings.Join(ports, ","))
	for name, value := range image.Config.Labels {
		if name != "" && !slices.ContainsFunc(orders, func(p string) bool { return strings.HasPrefix(name, p) }) {
			a[name] = value
		}
	}
	return a
}

// Volumes lists the directories that the image wants on storage of their own (CV9), clean, absolute and sorted. One that would
// cover the root or a kernel file system is refused (CVE-2015-3631, CVE-2019-16884). The names may lead through symbolic links of
// the image: resolve them inside the root filesystem only.
func Volumes(image v1.Image) ([]string, error) {
	var found []string
	for name := range image.Config.Volumes {
		p := path.Clean("/" + name)
		if strings.IndexByte(name, 0) >= 0 || p == "/" {
			return nil, fmt.Errorf("image volume %q is not a directory below the root", name)
		}
		if p == "/sys/fs/cgroup" {
			continue // systemd's images ask for it; the default configuration has a mount there
		}
		for _, kernel := range []string{"/proc", "/sys", "/dev"} {
			if p == kernel || strings.HasPrefix(p, kernel+"/") && p != "/dev/shm" {
				return nil, fmt.Errorf("image volume %q would cover a part of %s", name, kernel)
			}
		}
		found = append(found, p)
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// Write writes config.json into the bundle directory dir, atomically.
func Write(dir string, s *specs.Spec) error {
	if s == nil {
		return errors.New("write config.json: no configuration")
	}
	data, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return fmt.Errorf("write config.json: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(dir, "config.json"), append(data, '\n'), 0o644, atomicfile.NoSync); err != nil {
		return fmt.Errorf("write config.json: %w", err)
	}
	return nil
}
