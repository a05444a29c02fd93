package conformance

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

// kinds are the documents of the specification, with the schema of each.
var kinds = map[string]string{"config": "config-schema.json", "state": "state-schema.json", "features": "features-schema.json"}

// examples returns the example files of a kind: "good" or "bad".
func examples(t *testing.T, dir, kind, sort string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "test", kind, sort, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no %s examples of %s in %s: %v", sort, kind, dir, err)
	}
	return files
}

// TestSchemaValidator shows that the validator takes every good example of the specification and refuses every bad one.
func TestSchemaValidator(t *testing.T) {
	s := &schemas{dir: schemaDir(t)}
	for kind, schema := range kinds {
		for _, sort := range []string{"good", "bad"} {
			for _, file := range examples(t, s.dir, kind, sort) {
				v, err := readJSON(file)
				if err == nil {
					err = s.validate(schema, v)
				}
				if (err == nil) != (sort == "good") {
					t.Errorf("%s: %v", file, err)
				}
			}
		}
	}
}

// refusals are what the runtime says about examples: bad ones, and good ones that this runtime or this host cannot run.
var refusals = map[string]string{
	"bad/invalid-json.json":    "want a property name",
	"bad/linux-hugepage.json":  "linux.resources.hugepageLimits[0].pageSize",
	"bad/linux-netdevice.json": "linux.netDevices.eth0.name",
	"bad/linux-rdma.json":      "linux.resources.rdma.mlx5_1.hcaHandles",
	// Sections of other platforms are ignored on Linux.
	"bad/freebsd-vnet-disable.json": "",
	// The host has no resctrl file system, no SELinux and no AppArmor, and a label that cannot be set is an error.
	"good/spec-example.json": "not enabled on the host|selinux is disabled or not supported|resctrl|intelRdt",
}

// complete adds to an example what a container needs to run on Linux and what the example, being of another platform or
// minimal, does not have: a supported version and namespaces of its own.
func complete(t *testing.T, v map[string]any) {
	t.Helper()
	if v["ociVersion"] == "0.5.0-dev" {
		v["ociVersion"] = "1.0.0"
	}
	linux, _ := v["linux"].(map[string]any)
	if linux == nil {
		linux = map[string]any{}
		v["linux"] = linux
	}
	if linux["namespaces"] == nil {
		var list []any
		for _, kind := range []string{"mount", "pid", "network", "uts", "ipc"} {
			list = append(list, map[string]any{"type": kind})
		}
		linux["namespaces"] = list
	}
	// Absolute root paths of the examples become the bundle's.
	if root, ok := v["root"].(map[string]any); ok {
		root["path"] = "rootfs"
	}
}

// TestConfigExamples hands every example of a configuration to `tare-runtime plan`: good ones compile, bad ones are refused by a
// sentence that names the property.
func TestConfigExamples(t *testing.T) {
	if !ocitest.Tare() {
		t.Skip("plan is tare-runtime's own command")
	}
	dir := schemaDir(t)
	for _, sort := range []string{"good", "bad"} {
		for _, file := range examples(t, dir, "config", sort) {
			name := sort + "/" + filepath.Base(file)
			ocitest.Row(t, name, func(h *ocitest.H) {
				b := h.Bundle()
				data, err := os.ReadFile(file)
				if err != nil {
					h.Fatalf("%v", err)
				}
				var v map[string]any
				if json.Unmarshal(data, &v) == nil {
					complete(t, v)
					if data, err = json.Marshal(v); err != nil {
						h.Fatalf("%v", err)
					}
				}
				if b.Raw = data; b.Write() != nil {
					h.Fatalf("write the configuration")
				}
				r := h.RT("plan", b.Dir)
				want := refusals[name]
				switch {
				case want == "" && r.Code != 0:
					h.Errorf("refused: %s", r.Stderr)
				case want != "" && (r.Code == 0 || !containsOne(r.Stderr, want)):
					h.Errorf("status %d, %q, want a refusal that says %s", r.Code, r.Stderr, want)
				}
			})
		}
	}
}

// containsOne reports whether text contains one of the words, which are separated by "|".
func containsOne(text, words string) bool {
	for _, w := range strings.Split(words, "|") {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}

// TestOutputSchemas compares what the runtime prints with the schemas: the configuration that spec writes, the features
// document, and the state in every status. "paused", which the schema does not know, is what all runtimes say.
func TestOutputSchemas(t *testing.T) {
	s := &schemas{dir: schemaDir(t)}
	fits := func(h *ocitest.H, schema, text, what string) {
		v, err := decodeJSON([]byte(text))
		if err == nil {
			err = s.validate(schema, v)
		}
		if err != nil {
			h.Errorf("%s: %v\n%s", what, err, text)
		}
	}
	ocitest.Row(t, "features", func(h *ocitest.H) {
		fits(h, "features-schema.json", h.MustRT("features").Stdout, "features")
	})
	for _, flag := range []string{"", "--rootless"} {
		ocitest.Row(t, "spec "+flag, func(h *ocitest.H) {
			dir := h.TempDir()
			h.MustRT(append([]string{"spec", "--bundle", dir}, strings.Fields(flag)...)...)
			data, err := os.ReadFile(filepath.Join(dir, "config.json"))
			if err != nil {
				h.Fatalf("%v", err)
			}
			fits(h, "config-schema.json", string(data), "config.json")
		})
	}
	ocitest.Row(t, "state", func(h *ocitest.H) {
		b := h.Bundle().Args("sleep", "1000").Edit(`annotations={"a":"b"}`)
		h.Create(b)
		fits(h, "state-schema.json", h.MustRT("state", b.ID).Stdout, "state of a created container")
		h.MustRT("start", b.ID)
		fits(h, "state-schema.json", h.MustRT("state", b.ID).Stdout, "state of a running container")
		h.MustRT("pause", b.ID)
		paused := h.MustRT("state", b.ID).Stdout
		fits(h, "state-schema.json", strings.Replace(paused, `"paused"`, `"running"`, 1), "state of a paused container")
		if !strings.Contains(paused, `"paused"`) {
			h.Errorf("the state of a paused container is\n%s", paused)
		}
		h.MustRT("resume", b.ID)
		h.MustRT("kill", b.ID, "KILL")
		h.AwaitStatus(b.ID, "stopped")
		fits(h, "state-schema.json", h.MustRT("state", b.ID).Stdout, "state of a stopped container")
	})
	ocitest.Row(t, "state on a hook's standard input", func(h *ocitest.H) {
		b := h.Bundle()
		out := filepath.Join(h.TempDir(), "state")
		for _, hook := range []string{"prestart", "createRuntime", "createContainer", "poststart", "poststop"} {
			b.Edit(`hooks.` + hook + `=[{"path":"/bin/sh","args":["sh","-c","cat >` + out + `.` + hook + `"]}]`)
		}
		h.Run(b)
		for _, hook := range []string{"prestart", "createRuntime", "createContainer", "poststart", "poststop"} {
			data, err := os.ReadFile(out + "." + hook)
			if err != nil {
				h.Errorf("%v", err)
				continue
			}
			fits(h, "state-schema.json", string(data), "state of a "+hook+" hook")
		}
	})
}
