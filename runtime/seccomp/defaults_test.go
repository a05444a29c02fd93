package seccomp

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// dockerModule is where Docker keeps its default profile.
const dockerModule = "github.com/moby/profiles/seccomp@v0.3.0"

var long = os.Getenv("TARE_LONG") == "1"

// capSets are what containers have for whom an engine resolves its profile.
var capSets = map[string][]string{
	"no capabilities": nil,
	"docker's": {"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE",
		"CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT"},
	"privileged ones": {"CAP_AUDIT_WRITE", "CAP_BPF", "CAP_DAC_READ_SEARCH", "CAP_PERFMON", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_CHROOT", "CAP_SYS_MODULE",
		"CAP_SYS_NICE", "CAP_SYS_PACCT", "CAP_SYS_PTRACE", "CAP_SYS_RAWIO", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_SYSLOG"},
}

// defaultProfiles are the default profiles of engines, as their packages have them here, by name.
func defaultProfiles(t *testing.T, goarch string) map[string]*specs.LinuxSeccomp {
	t.Helper()
	list := map[string]*specs.LinuxSeccomp{"synthetic": dockerLike()}
	if goarch != "amd64" {
		list["synthetic"].Architectures = nil
		for _, a := range archs {
			list["synthetic"].Architectures = append(list["synthetic"].Architectures, a.name)
		}
	}
	files := map[string]string{"podman": "/usr/share/containers/seccomp.json"}
	if dir := dockerDefault(); dir != "" {
		files["docker"] = filepath.Join(dir, "default.json")
	} else {
		t.Log("no profile of Docker's: the module", dockerModule, "is not at hand")
	}
	for engine, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Log("no profile of", engine+":", err)
			continue
		}
		for who, caps := range capSets {
			p, err := ParseProfile(data, Conditions{Arch: goarch, Caps: caps})
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			list[engine+" with "+who] = p.Spec
		}
	}
	return list
}

// dockerDefault returns the module's directory, which the long form downloads; "" where it is not to be had.
func dockerDefault() string {
	cmd := exec.Command("go", "mod", "download", "-json", dockerModule)
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod")
	if !long {
		cmd.Env = append(cmd.Env, "GOPROXY=off")
	}
	cmd.Dir = os.TempDir()
	out, err := cmd.Output()
	var m struct{ Dir string }
	if err != nil || json.Unmarshal(out, &m) != nil {
		return ""
	}
	return m.Dir
}

// TestCompareDefaults compares the compiled default profiles of engines with the naive evaluator: for every machine, every number
// of every architecture, also of those that the profile does not list, and the corners of all arguments that a rule compares.
// The quick form has every number on three machines and fewer arguments.
func TestCompareDefaults(t *testing.T) {
	for _, goarch := range goarchs {
		every := slices.Contains([]string{"amd64", "arm64", "s390x"}, goarch)
		for name, p := range defaultProfiles(t, goarch) {
			if !every && !long && name != "synthetic" {
				continue
			}
			t.Run(name+"/"+goarch, func(t *testing.T) {
				t.Parallel()
				rnd := rand.New(rand.NewPCG(1, 2))
				compare(t, p, goarch, every, rnd)
				if long {
					compareWhole(t, p, goarch, rnd)
				}
			})
		}
	}
}

// TestCompareContainerd asks containerd for its default profile, which is compiled in.
func TestCompareContainerd(t *testing.T) {
	if !long {
		t.Skip("starts containerd: TARE_LONG=1")
	}
	if _, err := exec.LookPath("containerd"); err != nil || os.Getuid() != 0 {
		t.Skip("needs containerd and root")
	}
	p := containerdDefault(t)
	for _, goarch := range []string{"amd64", "386"} {
		compareWhole(t, p, goarch, rand.New(rand.NewPCG(1, 2)))
	}
}

func containerdDefault(t *testing.T) *specs.LinuxSeccomp {
	t.Helper()
	dir := t.TempDir()
	conf := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n", dir+"/root", dir+"/state", dir+"/sock")
	if err := os.WriteFile(dir+"/config.toml", []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command("containerd", "-c", dir+"/config.toml")
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	defer daemon.Wait()
	defer daemon.Process.Kill()
	for range 100 {
		if _, err := os.Stat(dir + "/sock"); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	ctr := func(args ...string) []byte {
		out, err := exec.Command("ctr", append([]string{"-a", dir + "/sock"}, args...)...).Output()
		if err != nil {
			t.Fatalf("ctr %s: %v", strings.Join(args, " "), err)
		}
		return out
	}
	ctr("container", "create", "--seccomp", "--rootfs", dir, "tare")
	var info struct{ Spec *specs.Spec }
	if err := json.Unmarshal(ctr("container", "info", "tare"), &info); err != nil {
		t.Fatal(err)
	}
	return info.Spec.Linux.Seccomp
}

// compareWhole looks at every number that any architecture could have, and at every pair of corners on the arguments that the rules
// of a number compare, with garbage on the others.
func compareWhole(t *testing.T, s *specs.LinuxSeccomp, goarch string, rnd *rand.Rand) {
	t.Helper()
	f, err := Compile(s, goarch)
	if err != nil {
		t.Fatal(err)
	}
	values := corners(s)
	tried := 0
	for i := range archs {
		a := &archs[i]
		withArgs := argNumbers(s, a.token)
		for _, nr := range wholeNumbers(a) {
			expect := naive(s, goarch, a.token, nr)
			same := func(args [6]uint64) {
				tried++
				d := data{nr: nr, arch: a.token, args: args}
				got, _ := run(f.Program, &d, f.machine.bigEndian)
				if want := expect(&d); got != want {
					t.Fatalf("%s on %s: call %#x %#x: program says %#x, naive %#x", a.name, goarch, nr, args, got, want)
				}
			}
			same([6]uint64{})
			same([6]uint64{^uint64(0), 1, ^uint64(0), 1 << 63, 1<<32 | 1, 0x7e020000})
			if !withArgs[nr] {
				continue
			}
			pairs(comparedArgs(s, a, nr), values, rnd, same)
		}
	}
	t.Logf("%d calls, %d instructions", tried, len(f.Program))
}

// wholeNumbers are all numbers up to well beyond the newest call, with and without the bits that mean something somewhere.
func wholeNumbers(a *arch) (list []uint32) {
	for _, base := range []uint32{0, a.base, x32Bit, armPrivateBase} {
		for nr := range uint32(1200) {
			list = append(list, base+nr)
		}
	}
	for bit := range 32 {
		list = append(list, 1<<bit-1, 1<<bit, 1<<bit+1, ^uint32(0)>>bit)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// comparedArgs lists the arguments that rules for a number compare.
func comparedArgs(s *specs.LinuxSeccomp, a *arch, nr uint32) []uint {
	list := []uint{0} // of socketcall and ipc
	names := namesOf(a, nr)
	for _, r := range s.Syscalls {
		for _, c := range r.Args {
			if slices.ContainsFunc(r.Names, func(n string) bool { return slices.Contains(names, n) }) {
				list = append(list, c.Index)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// pairs calls same with each pair of values on each pair of arguments.
func pairs(args []uint, values []uint64, rnd *rand.Rand, same func([6]uint64)) {
	for i, x := range args {
		for _, y := range args[i:] {
			for _, v := range values {
				for _, w := range values {
					var d [6]uint64
					for k := range d {
						d[k] = values[rnd.IntN(len(values))]
					}
					d[x], d[y] = v, w
					same(d)
				}
			}
		}
	}
}
