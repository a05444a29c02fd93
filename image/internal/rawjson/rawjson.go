// Package rawjson changes members of JSON objects and leaves everything else, unknown members and the order of all included,
// byte for byte as it was: what tare does not know about an image must survive that tare changes it.
package rawjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/tare-oci/tare/internal/ijson"
)

// Object is a JSON object whose values are kept as they were written. The zero value is an empty object. It is not safe for
// use by several goroutines at once.
type Object struct{ members []member }

type member struct {
	name  string
	value json.RawMessage
}

// Parse reads an object; what ijson.Unmarshal refuses (a name twice, for one) is an error.
func Parse(raw []byte) (*Object, error) {
	var checked map[string]json.RawMessage
	if err := ijson.Unmarshal(raw, &checked); err != nil {
		return nil, err
	}
	if checked == nil {
		return nil, fmt.Errorf("decode JSON: null where an object is expected")
	}
	o := &Object{members: make([]member, 0, len(checked))}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		o.members = append(o.members, member{name.(string), value})
	}
	return o, nil
}

// Names returns the members' names in their order.
func (o *Object) Names() []string {
	names := make([]string, len(o.members))
	for i, m := range o.members {
		names[i] = m.name
	}
	return names
}

// Get returns the text of a member's value, nil if there is no such member or it is null.
func (o *Object) Get(name string) json.RawMessage {
	if i := o.find(name); i >= 0 && string(o.members[i].value) != "null" {
		return o.members[i].value
	}
	return nil
}

// Set gives the member name, which keeps its place or comes last if it is new, the value v as encoding/json writes it, with
// <, > and & as they are.
func (o *Object) Set(name string, v any) error {
	value, err := Marshal(v)
	if err != nil {
		return err
	}
	if i := o.find(name); i >= 0 {
		o.members[i].value = value
	} else {
		o.members = append(o.members, member{name, value})
	}
	return nil
}

// Delete removes a member; one that is not there is no error.
func (o *Object) Delete(name string) {
	o.members = slices.DeleteFunc(o.members, func(m member) bool { return m.name == name })
}

// Object returns the member name as an object of its own, empty if there is none. Changes of it have to be Set.
func (o *Object) Object(name string) (*Object, error) {
	value := o.Get(name)
	if value == nil {
		return &Object{}, nil
	}
	child, err := Parse(value)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return child, nil
}

// Array returns the elements of the member name, none if there is no such member.
func (o *Object) Array(name string) ([]json.RawMessage, error) {
	var elements []json.RawMessage
	if value := o.Get(name); value != nil {
		if err := json.Unmarshal(value, &elements); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return elements, nil
}

// Len returns the number of members.
func (o *Object) Len() int { return len(o.members) }

// MarshalJSON writes the object. Values are as they were, without white space between members.
func (o *Object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o.members {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := Marshal(m.name)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(m.value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func (o *Object) find(name string) int {
	return slices.IndexFunc(o.members, func(m member) bool { return m.name == name })
}

// Marshal is json.Marshal without its escapes for HTML.
func Marshal(v any) ([]byte, error) {
	if o, ok := v.(*Object); ok {
		return o.MarshalJSON() // encoding/json would write its values again
	}
	if raw, ok := v.(json.RawMessage); ok && raw != nil {
		return raw, nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
