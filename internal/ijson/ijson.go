// Package ijson decodes JSON documents from strangers so that every reader sees the same document: I-JSON (RFC 7493), and
// names matched to the letter. Go's encoding/json alone takes the last of two equal names and ignores case, so that a
// document can show one content to it and another one to the next reader (CVE-2021-41190 is of that family).
package ijson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects may nest. OCI documents use less than ten levels.
const MaxDepth = 100

// Unmarshal decodes one JSON document into v as json.Unmarshal does, and refuses what RFC 7493 forbids: invalid UTF-8 and
// a name twice in one object. It also refuses a name that differs from a field of v only in case, and nesting deeper than
// MaxDepth. Unknown names are ignored. v is a non-nil pointer; on an error its content is undefined.
func Unmarshal(data []byte, v any) error {
	if !utf8.Valid(data) {
		return errors.New("decode JSON: invalid UTF-8")
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("decode JSON: %w", err)
	}
	w := walker{dec: json.NewDecoder(bytes.NewReader(data)), names: map[reflect.Type]map[string]reflect.Type{}}
	w.dec.UseNumber()
	if err := w.value(reflect.TypeOf(v), 0); err != nil {
		return fmt.Errorf("decode JSON: %w", err)
	}
	return nil
}

// walker reads a document's tokens beside the Go type into which the document was decoded. Syntax is already checked.
type walker struct {
	dec   *json.Decoder
	names map[reflect.Type]map[string]reflect.Type
}

// value walks one value that was decoded into t; t is nil where nothing is known about it.
func (w *walker) value(t reflect.Type, depth int) error {
	tok, err := w.dec.Token()
	if err != nil {
		return err
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	if depth >= MaxDepth {
		return fmt.Errorf("nested deeper than %d levels", MaxDepth)
	}
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if delim == '{' {
		err = w.object(t, depth+1)
	} else {
		var elem reflect.Type
		if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
			elem = t.Elem()
		}
		for err == nil && w.dec.More() {
			err = w.value(elem, depth+1)
		}
	}
	if err != nil {
		return err
	}
	_, err = w.dec.Token() // the closing bracket
	return err
}

func (w *walker) object(t reflect.Type, depth int) error {
	seen := map[string]bool{}
	for w.dec.More() {
		tok, err := w.dec.Token()
		if err != nil {
			return err
		}
		name, _ := tok.(string)
		if seen[name] {
			return fmt.Errorf("name %q twice in one object", name)
		}
		seen[name] = true
		member, err := w.member(t, name)
		if err != nil {
			return err
		}
		if err := w.value(member, depth); err != nil {
			return err
		}
	}
	return nil
}

// member returns the type into which the member name of an object of type t was decoded, nil when it was ignored.
func (w *walker) member(t reflect.Type, name string) (reflect.Type, error) {
	if t == nil {
		return nil, nil
	}
	switch t.Kind() {
	case reflect.Map:
		return t.Elem(), nil
	case reflect.Struct:
	default:
		return nil, nil
	}
	fields := w.fields(t)
	if member, ok := fields[name]; ok {
		return member, nil
	}
	for field := range fields {
		if strings.EqualFold(field, name) {
			return nil, fmt.Errorf("name %q differs from %q only in case", name, field)
		}
	}
	return nil, nil
}

// fields returns the JSON names of a struct with those of its embedded structs.
func (w *walker) fields(t reflect.Type) map[string]reflect.Type {
	if f, ok := w.names[t]; ok {
		return f
	}
	f := map[string]reflect.Type{}
	for _, field := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case !field.IsExported() || name == "-" || field.Anonymous && name == "":
			continue
		case name == "":
			name = field.Name
		}
		f[name] = field.Type
	}
	w.names[t] = f
	return f
}
