package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"

	"github.com/tare-oci/tare/distribution/server/config"
)

// examples are the TOML blocks of the document, which a reader will copy.
func examples(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/registry.md")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, part := range strings.Split(string(text), "```toml\n")[1:] {
		block, _, ok := strings.Cut(part, "```")
		if !ok {
			t.Fatal("a block does not end")
		}
		out = append(out, block)
	}
	return out
}

// TestExamples: every example of docs/registry.md is a configuration, and there is every key in them.
func TestExamples(t *testing.T) {
	dir := t.TempDir()
	seen := map[string]bool{}
	for i, text := range examples(t) {
		file := filepath.Join(dir, "config.toml")
		for name, data := range map[string]string{"config.toml": text, "access-key": "a", "secret-key": "b", "robot-password": "c"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := config.Load(file); err != nil {
			t.Errorf("example %d: %v", i+1, err)
		}
		meta, err := toml.Decode(text, &config.Config{})
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range meta.Keys() {
			seen[k.String()] = true
		}
	}
	var walk func(prefix string, typ reflect.Type)
	walk = func(prefix string, typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			key := strings.TrimPrefix(prefix+"."+f.Tag.Get("toml"), ".")
			if !seen[key] {
				t.Errorf("docs/registry.md has no %s", key)
			}
			if ft := f.Type; ft.Kind() == reflect.Struct {
				walk(key, ft)
			} else if ft.Kind() == reflect.Slice && ft.Elem().Kind() == reflect.Struct {
				walk(key, ft.Elem())
			}
		}
	}
	walk("", reflect.TypeFor[config.Config]())
}

// TestDefaults: what the first example calls a default is one.
func TestDefaults(t *testing.T) {
	var lines []string
	example := false
	for line := range strings.Lines(examples(t)[0]) {
		if strings.HasPrefix(line, "[") {
			if example = strings.Contains(line, "# example"); strings.HasPrefix(line, "[[") || example {
				example = true
				continue
			}
		}
		if !example && !strings.Contains(line, "# example") {
			lines = append(lines, line)
		}
	}
	got := config.Default()
	if _, err := toml.Decode(strings.Join(lines, ""), got); err != nil {
		t.Fatal(err)
	}
	if want := config.Default(); !reflect.DeepEqual(got, want) {
		t.Errorf("the document says\n%+v\nand the code\n%+v", got, want)
	}
}
