package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tare-oci/tare/runtime/spec"
)

// runtimeBinary is the binary under test: black boxes have flags, files and an exit status.
var runtimeBinary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "tare-runtime-test")
	if err != nil {
		panic(err)
	}
	runtimeBinary = filepath.Join(dir, "tare-runtime")
	out, err := exec.Command("go", "build", "-o", runtimeBinary, ".").CombinedOutput()
	status := 1
	if err != nil {
		os.Stderr.Write(out)
	} else {
		status = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(status)
}

// tare runs one command over an empty state directory.
func tare(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var o, e strings.Builder
	c := exec.Command(runtimeBinary, append([]string{"--root", t.TempDir()}, args...)...)
	c.Stdout, c.Stderr = &o, &e
	if err := c.Run(); c.ProcessState == nil {
		t.Fatal(err)
	}
	return o.String(), e.String(), c.ProcessState.ExitCode()
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		args, want string // want: part of what is on stderr
		status     int
	}{
		{"state none", `level=error msg="container does not exist"`, 1},
		{"state", `\"state\" requires exactly 1 argument(s)"`, 1},
		{"state a b", `\"state\" requires exactly 1 argument(s)"`, 1},
		{"kill", `\"kill\" requires a minimum of 1 argument(s)"`, 1},
		{"kill a b c", `\"kill\" requires a maximum of 2 argument(s)"`, 1},
		{"kill none", "container does not exist", 1},
		{"kill none FOO", `unknown signal \"FOO\"`, 1},
		{"delete none", "container does not exist", 1},
		{"delete -f none", "", 0},
		{"delete none --force", "", 0},
		{"pause none", "container does not exist", 1},
		{"resume none", "container does not exist", 1},
		{"ps none", "container does not exist", 1},
		{"ps -f xml none", "invalid format option", 1},
		{"list -f xml", "invalid format option", 1},
		{"update --memory 64M none", "container does not exist", 1},
		{"update --memory 64X none", "container does not exist", 1},
		{"update --l3-cache-schema x none", "container does not exist", 1},
		{"update -r /none none", "container does not exist", 1},
		{"exec none", "exec failed: exec args cannot be empty", 255},
		{"exec -g x none true", `invalid value \"x\" for flag -g: not a group number`, 1},
		{"state a/b", `invalid container ID format: \"a/b\"`, 1},
		{"state ..", `invalid container ID format`, 1},
		{"--nosuch", `level=error msg="flag provided but not defined: -nosuch"`, 1},
		{"state -nosuch none", `level=error msg="flag provided but not defined: -nosuch"`, 1},
		{"nosuch", "No help topic for 'nosuch'", 3},
		{"nosuch -h", "No help topic for 'nosuch'", 3},
		{"help nosuch", "No help topic for 'nosuch'", 3},
		{"--systemd-cgroup state none", "container does not exist", 1},
		{"checkpoint --image-path x none", "container does not exist", 1},
		{"checkpoint", `\"checkpoint\" requires exactly 1 argument(s)`, 1},
		{"checkpoint --page-server x none", `invalid value \"x\" for flag -page-server: use --page-server ADDRESS:PORT`, 1},
		{"checkpoint --page-server [::1]:99999 none", "invalid port number", 1},
		{"restore none", "/config.json: no such file or directory", 1},
		{"restore --manage-cgroups-mode full none", "--manage-cgroups-mode full is not supported: the limits are those of config.json", 1},
		{"restore --no-pivot none", "--no-pivot is not supported: criu always pivots", 1},
		{"--criu /x state none", `level=warning msg="--criu ignored (criu binary from $PATH is used); do not use"`, 1},
		{"--rootless maybe list", `invalid value \"maybe\" for --rootless`, 1},
		{"--log-format xml list", "invalid log-format: xml", 1},
		{"--log /none/x list", "open log: open /none/x: no such file or directory", 1},
	} {
		stdout, stderr, status := tare(t, strings.Fields(c.args)...)
		shown := strings.HasPrefix(stdout, "Incorrect Usage.\n\nNAME:\n   tare-runtime ") && strings.Contains(stdout, "USAGE:\n")
		if status != c.status || !strings.Contains(stderr, c.want) || c.want == "" && stderr != "" || stdout != "" && !shown {
			t.Errorf("%s: status %d, stdout %q, stderr %q; want %d, %q", c.args, status, stdout, stderr, c.status, c.want)
		}
	}
}

func TestOutput(t *testing.T) {
	for args, want := range map[string]string{
		"--version":         `^tare-runtime version \S+\ncommit: \S+\nspec: 1\.3\.0\ngo: go1\.\S+\n$`,
		"list -v":           `^tare-runtime version `,
		"":                  `^NAME:\n   tare-runtime - (.|\n)*\n   create +create a container\n(.|\n)*--root DIR`,
		"--help":            `COMMANDS:`,
		"h":                 `COMMANDS:`,
		"help run":          `USAGE:\n   tare-runtime run \[FLAGS\] ID\n(.|\n)*--detach, -d `,
		"run --help":        `--no-subreaper `,
		"exec -h a b":       `tare-runtime exec \[FLAGS\] ID COMMAND \[ARG...\]`,
		"list":              `^ID          PID         STATUS      BUNDLE      CREATED     OWNER\n$`,
		"list -q":           `^$`,
		"list -format=json": `^null\n$`,
	} {
		stdout, stderr, status := tare(t, strings.Fields(args)...)
		if status != 0 || stderr != "" || !regexp.MustCompile(want).MatchString(stdout) {
			t.Errorf("%s: status %d, stderr %q, stdout:\n%swant %s", args, status, stderr, stdout, want)
		}
	}
}

func TestLog(t *testing.T) {
	const stamp = `"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"`
	for _, c := range []struct{ args, log, stderr string }{
		{"--log-format json", `^{"level":"error","msg":"container does not exist","time":` + stamp + `}\n$`, `^container does not exist\n$`},
		{"--log-format=text", `^time=` + stamp + ` level=error msg="container does not exist"\n$`, `^container does not exist\n$`},
	} {
		file := filepath.Join(t.TempDir(), "log")
		for range 2 { // lines are appended
			args := append(append([]string{"--log", file}, strings.Fields(c.args)...), "state", "none")
			if _, stderr, status := tare(t, args...); status != 1 || !regexp.MustCompile(c.stderr).MatchString(stderr) {
				t.Errorf("%s: status %d, stderr %q", c.args, status, stderr)
			}
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.SplitAfter(string(data), "\n")
		if len(lines) != 3 || !regexp.MustCompile(c.log).MatchString(lines[1]) {
			t.Errorf("%s: log %q", c.args, data)
		}
	}
	file := filepath.Join(t.TempDir(), "log")
	tare(t, "--log", file, "--log-format", "json", "start")
	if data, err := os.ReadFile(file); err != nil || !strings.Contains(string(data), `"msg":"\"start\" requires exactly 1 argument(s)"`) {
		t.Errorf("log of a wrong command line %q, %v", data, err)
	}
}

func TestSpec(t *testing.T) {
	for _, rootless := range []bool{false, true} {
		dir := t.TempDir()
		args := []string{"spec", "--bundle", dir}
		if rootless {
			args = append(args, "--rootless")
		}
		if _, stderr, status := tare(t, args...); status != 0 || stderr != "" {
			t.Fatalf("status %d, stderr %q", status, stderr)
		}
		s, warnings, err := spec.Load(dir)
		if err != nil || len(warnings) != 0 || (len(s.Linux.UIDMappings) > 0) != rootless {
			t.Errorf("rootless %v: %v, %q, mappings %v", rootless, err, warnings, s.Linux.UIDMappings)
		}
		_, stderr, status := tare(t, args...)
		if want := "File " + filepath.Join(dir, "config.json") + " exists. Remove it first"; status != 1 || !strings.Contains(stderr, want) {
			t.Errorf("second time: status %d, stderr %q", status, stderr)
		}
	}
}

func TestFeatures(t *testing.T) {
	stdout, stderr, status := tare(t, "features")
	var f struct {
		OCIVersionMin, OCIVersionMax string
		Hooks                        []string
		Linux                        struct{ Namespaces, Capabilities []string }
	}
	if err := json.Unmarshal([]byte(stdout), &f); err != nil || status != 0 || stderr != "" {
		t.Fatalf("%v, status %d, stderr %q", err, status, stderr)
	}
	if f.OCIVersionMin != "1.0.0" || f.OCIVersionMax != "1.3.0" || len(f.Hooks) != 6 || len(f.Linux.Namespaces) != 8 || len(f.Linux.Capabilities) != 41 {
		t.Errorf("features %+v", f)
	}
}

func TestFilter(t *testing.T) {
	const table = "UID  PID PPID CMD\nroot   1 0 init\nroot  12 1 sh -c 1\n"
	got, err := filter(table, []int{12, 13})
	if want := "UID  PID PPID CMD\nroot  12 1 sh -c 1\n"; err != nil || got != want {
		t.Errorf("filter = %q, %v", got, err)
	}
	if _, err := filter("CMD\ninit\n", nil); err == nil || !strings.Contains(err.Error(), "find column PID") {
		t.Errorf("filter without the column = %v", err)
	}
}
