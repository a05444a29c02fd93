package conformance

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// schemas is a set of JSON schemas (draft 4) in one directory. It knows the keywords that the runtime specification's
// schemas use; another one is an error, so that nothing is taken for checked that is not.
type schemas struct {
	dir   string
	files map[string]any
}

// schemaDir returns the directory of the schemas of the runtime specification, in the version that go.mod names.
func schemaDir(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/opencontainers/runtime-spec").Output()
	if err != nil {
		t.Fatalf("find the runtime specification's module: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "schema")
}

func readJSON(path string) (any, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return decodeJSON(data)
}

// decodeJSON decodes with numbers kept as they are written.
func decodeJSON(data []byte) (any, error) {
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, fmt.Errorf("text after the value")
	}
	return v, nil
}

// validate checks a value against the schema in a file of the directory.
func (s *schemas) validate(file string, v any) error { return s.resolve(file, "", v, "") }

// resolve checks v against the schema at a JSON pointer of a file.
func (s *schemas) resolve(file, pointer string, v any, at string) error {
	if s.files == nil {
		s.files = map[string]any{}
	}
	if s.files[file] == nil {
		root, err := readJSON(filepath.Join(s.dir, file))
		if err != nil {
			return err
		}
		s.files[file] = root
	}
	schema := s.files[file]
	for _, name := range strings.FieldsFunc(pointer, func(r rune) bool { return r == '/' }) {
		object, _ := schema.(map[string]any)
		if schema = object[name]; schema == nil {
			return fmt.Errorf("%s#%s: there is no %q", file, pointer, name)
		}
	}
	object, ok := schema.(map[string]any)
	if !ok {
		return fmt.Errorf("%s#%s: not a schema", file, pointer)
	}
	return s.check(file, object, v, at)
}

// ignored are keywords that say nothing about the value. Formats are hints for generators of code.
var ignored = map[string]bool{"description": true, "$schema": true, "id": true, "title": true, "definitions": true, "format": true, "default": true}

func (s *schemas) check(file string, schema map[string]any, v any, at string) error {
	if ref, ok := schema["$ref"].(string); ok {
		other, pointer, _ := strings.Cut(ref, "#")
		if other == "" {
			other = file
		}
		return s.resolve(other, pointer, v, at)
	}
	for keyword, want := range schema {
		var err error
		switch keyword {
		case "type":
			err = checkType(want, v)
		case "enum":
			err = checkEnum(want.([]any), v)
		case "minimum", "maximum", "minItems", "minLength", "pattern":
			err = checkBounds(keyword, want, v)
		case "required", "properties", "patternProperties", "additionalProperties":
			if object, ok := v.(map[string]any); ok {
				err = s.checkObject(file, keyword, schema, object, at)
			}
		case "items":
			list, _ := v.([]any)
			for i := 0; i < len(list) && err == nil; i++ {
				err = s.check(file, want.(map[string]any), list[i], fmt.Sprintf("%s[%d]", at, i))
			}
		case "allOf", "anyOf", "oneOf", "not":
			err = s.checkCombination(file, keyword, want, v, at)
		default:
			if !ignored[keyword] {
				return fmt.Errorf("%s: keyword %q is not known to this validator", file, keyword)
			}
		}
		if err != nil {
			if at != "" && !strings.HasPrefix(err.Error(), at) {
				err = fmt.Errorf("%s: %w", at, err)
			}
			return err
		}
	}
	return nil
}

func checkType(want, v any) error {
	is := "null"
	switch v := v.(type) {
	case map[string]any:
		is = "object"
	case []any:
		is = "array"
	case string:
		is = "string"
	case bool:
		is = "boolean"
	case json.Number:
		if is = "integer"; strings.ContainsAny(v.String(), ".eE") {
			is = "number"
		}
	}
	wanted, ok := want.([]any)
	if !ok {
		wanted = []any{want}
	}
	for _, w := range wanted {
		if w == is || w == "number" && is == "integer" {
			return nil
		}
	}
	return fmt.Errorf("want %v, got %s", want, is)
}

func checkEnum(want []any, v any) error {
	for _, w := range want {
		if reflect.DeepEqual(w, v) {
			return nil
		}
	}
	return fmt.Errorf("%v is not one of %v", v, want)
}

func checkBounds(keyword string, want, v any) error {
	number := func(x any) float64 {
		n, _ := x.(json.Number)
		f, _ := n.Float64()
		return f
	}
	bad := false
	switch v := v.(type) {
	case json.Number:
		bad = keyword == "minimum" && number(v) < number(want) || keyword == "maximum" && number(v) > number(want)
	case []any:
		bad = keyword == "minItems" && float64(len(v)) < number(want)
	case string:
		switch keyword {
		case "minLength":
			bad = float64(utf8.RuneCountInString(v)) < number(want)
		case "pattern":
			re, err := regexp.Compile(want.(string))
			if err != nil {
				return err
			}
			bad = !re.MatchString(v)
		}
	}
	if bad {
		return fmt.Errorf("%v does not fit %s %v", v, keyword, want)
	}
	return nil
}

func (s *schemas) checkObject(file, keyword string, schema, object map[string]any, at string) error {
	switch keyword {
	case "required":
		for _, name := range schema["required"].([]any) {
			if _, ok := object[name.(string)]; !ok {
				return fmt.Errorf("%s is missing", join(at, name.(string)))
			}
		}
		return nil
	case "properties":
		for name, sub := range schema["properties"].(map[string]any) {
			if v, ok := object[name]; ok {
				if err := s.check(file, sub.(map[string]any), v, join(at, name)); err != nil {
					return err
				}
			}
		}
		return nil
	}
	// What is left are patternProperties and additionalProperties, checked together.
	patterns, _ := schema["patternProperties"].(map[string]any)
	named, _ := schema["properties"].(map[string]any)
	for name, v := range object {
		matched := named[name] != nil
		for pattern, sub := range patterns {
			re, err := regexp.Compile(pattern)
			if err != nil {
				return err
			}
			if re.MatchString(name) {
				matched = true
				if err := s.check(file, sub.(map[string]any), v, join(at, name)); err != nil {
					return err
				}
			}
		}
		switch additional := schema["additionalProperties"].(type) {
		case bool:
			if !additional && !matched {
				return fmt.Errorf("%s is not allowed", join(at, name))
			}
		case map[string]any:
			if !matched {
				if err := s.check(file, additional, v, join(at, name)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (s *schemas) checkCombination(file, keyword string, want, v any, at string) error {
	if keyword == "not" {
		if s.check(file, want.(map[string]any), v, at) == nil {
			return fmt.Errorf("%v is what must not be", v)
		}
		return nil
	}
	fits := 0
	var first error
	for _, sub := range want.([]any) {
		if err := s.check(file, sub.(map[string]any), v, at); err == nil {
			fits++
		} else if first == nil {
			first = err
		}
	}
	if keyword == "allOf" && first != nil || fits == 0 || keyword == "oneOf" && fits != 1 {
		return fmt.Errorf("%s: %d fit: %w", keyword, fits, first)
	}
	return nil
}

func join(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}
