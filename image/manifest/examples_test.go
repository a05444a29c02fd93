package manifest

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/image-spec/specs-go/v1"
)

// specification returns the directory of the image specification's module, which has its text and its schema's tests.
func specification(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/opencontainers/image-spec").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// checkExample parses a document as what its media type says.
func checkExample(mediaType string, raw []byte) error {
	switch {
	case mediaType == v1.MediaTypeDescriptor:
		var d v1.Descriptor
		if err := decode(raw, "descriptor", MaxManifest, &d); err != nil {
			return err
		}
		return CheckDescriptor(d)
	case IsIndex(mediaType):
		_, err := ParseIndex(raw, mediaType)
		return err
	case IsManifest(mediaType):
		_, err := ParseManifest(raw, mediaType)
		return err
	case IsConfig(mediaType):
		_, err := ParseConfig(raw)
		return err
	}
	return fmt.Errorf("nobody here reads %s", mediaType)
}

var fence = regexp.MustCompile("(?ms)^ *```json,title=([^&]*)&mediatype=(\\S+)\n(.*?)^ *```")

// TestSpecificationExamples takes every example of the specification's text.
func TestSpecificationExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(specification(t), "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range fence.FindAllStringSubmatch(string(text), -1) {
			mediaType, err := url.QueryUnescape(m[2])
			if err != nil {
				t.Fatal(err)
			}
			if mediaType == v1.MediaTypeLayoutHeader {
				continue // image/archive reads that one
			}
			found++
			if err := checkExample(mediaType, []byte(m[3])); err != nil {
				t.Errorf("%s, %s: %v", filepath.Base(name), m[1], err)
			}
		}
	}
	if found < 12 {
		t.Errorf("%d examples found, want at least 12", found)
	}
}

// differs are the cases of the schema's tests that end otherwise here, with the reason.
var differs = map[string]string{
	"manifest_test.go:170":   "manifest.md, layers: the list SHOULD have an entry, so an empty one is legal (artifacts have it)",
	"imageindex_test.go:95":  "a platform without architecture never matches; it must not keep the other entries from being used",
	"config_test.go:232":     "a variable without a value is dropped when a container is made; such images are around",
	"descriptor_test.go:125": "without size it is 0, and a content of another size is refused when it is read",
	"descriptor_test.go:250": "nothing is decided by artifactType, so its grammar is the registry's matter",
	"descriptor_test.go:222": "urls are read when a layer is fetched from them, and then only http and https are taken",
}

// TestSchemaCases takes the documents of the schema's own tests, those that are to fail too.
func TestSchemaCases(t *testing.T) {
	kinds := map[string]string{"manifest_test.go": v1.MediaTypeImageManifest, "imageindex_test.go": v1.MediaTypeImageIndex,
		"config_test.go": v1.MediaTypeImageConfig, "descriptor_test.go": v1.MediaTypeDescriptor}
	found := 0
	for name, mediaType := range kinds {
		file := filepath.Join(specification(t), "schema", name)
		for line, c := range schemaCases(t, file) {
			found++
			where := fmt.Sprintf("%s:%d", name, line)
			if reason, ok := differs[where]; ok {
				if err := checkExample(mediaType, []byte(c.document)); (err != nil) == c.fail {
					t.Errorf("%s ends as the schema says, but is listed as different (%s)", where, reason)
				}
				continue
			}
			if err := checkExample(mediaType, []byte(c.document)); (err != nil) != c.fail {
				t.Errorf("%s: error %v, the schema fails: %v\n%s", where, err, c.fail, c.document)
			}
		}
	}
	if found < 50 {
		t.Errorf("%d cases found, want at least 50", found)
	}
}

type schemaCase struct {
	document string
	fail     bool
}

// schemaCases returns the table entries of a test file by their line: a raw string and perhaps fail: true.
func schemaCases(t *testing.T, file string) map[int]schemaCase {
	t.Helper()
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[int]schemaCase{}
	ast.Inspect(f, func(n ast.Node) bool {
		lit, ok := n.(*ast.CompositeLit)
		if !ok || lit.Type != nil {
			return true
		}
		var c schemaCase
		for _, e := range lit.Elts {
			kv, ok := e.(*ast.KeyValueExpr)
			if !ok {
				continue
			}
			switch v := kv.Value.(type) {
			case *ast.BasicLit:
				if s, err := strconv.Unquote(v.Value); err == nil && json.Valid([]byte(s)) || strings.Contains(s, "{") {
					c.document = s
				}
			case *ast.Ident:
				c.fail = c.fail || v.Name == "true"
			}
		}
		if c.document != "" {
			cases[set.Position(lit.Pos()).Line] = c
		}
		return true
	})
	return cases
}
