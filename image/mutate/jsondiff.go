package mutate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tare-oci/tare/image/internal/rawjson"
	"github.com/tare-oci/tare/internal/ijson"
)

// json compares two documents but for the members left out.
func (e *explainer) json(where string, a, b []byte, without ...string) error {
	var objects [2]map[string]any
	for i, raw := range [][]byte{a, b} {
		if err := ijson.Unmarshal(raw, &objects[i]); err != nil { // refuses names twice
			return err
		}
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		objects[i] = nil
		if err := dec.Decode(&objects[i]); err != nil {
			return err
		}
		for _, name := range without {
			delete(objects[i], name)
		}
	}
	before := len(e.found)
	if err := e.values(where, "", objects[0], objects[1]); err != nil {
		return err
	}
	if len(e.found) > before || bytes.Equal(a, b) {
		return nil
	}
	return e.form(where, a, b, without)
}

// form finds documents that say the same in other words: white space, order. Members left out are told of elsewhere.
func (e *explainer) form(where string, a, b []byte, without []string) error {
	oa, err := rawjson.Parse(a)
	if err != nil {
		return err
	}
	ob, err := rawjson.Parse(b)
	if err != nil {
		return err
	}
	if !slices.Equal(oa.Names(), ob.Names()) && len(oa.Names()) == len(ob.Names()) {
		return e.add(Difference{where, "the same members in another order", strings.Join(oa.Names(), " "), strings.Join(ob.Names(), " ")})
	}
	for _, name := range oa.Names() {
		if !slices.Contains(without, name) && !bytes.Equal(oa.Get(name), ob.Get(name)) {
			return e.add(Difference{where, "the same values in another form (white space, order, escapes): " + name, "", ""})
		}
	}
	if len(without) == 0 {
		return e.add(Difference{where, "the same values with other white space", "", ""})
	}
	return nil
}

// values compares two JSON values.
func (e *explainer) values(where, path string, a, b any) error {
	mapA, okA := a.(map[string]any)
	mapB, okB := b.(map[string]any)
	if okA && okB {
		names := maps.Clone(mapA)
		maps.Copy(names, mapB)
		for _, name := range slices.Sorted(maps.Keys(names)) {
			at := strings.TrimPrefix(path+"."+name, ".")
			va, inA := mapA[name]
			vb, inB := mapB[name]
			var err error
			switch {
			case !inA:
				err = e.add(Difference{where + ": " + at, "only one has it", "", text(vb)})
			case !inB:
				err = e.add(Difference{where + ": " + at, "only one has it", text(va), ""})
			default:
				err = e.values(where, at, va, vb)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	listA, okA := a.([]any)
	listB, okB := b.([]any)
	if okA && okB && len(listA) == len(listB) {
		for i := range listA {
			if err := e.values(where, fmt.Sprintf("%s[%d]", path, i), listA[i], listB[i]); err != nil {
				return err
			}
		}
		return nil
	}
	if x, y := text(a), text(b); x != y {
		return e.add(Difference{where + ": " + path, "another value", x, y})
	}
	return nil
}

// text returns a value as JSON, shortened.
func text(v any) string {
	raw, err := rawjson.Marshal(v)
	if err != nil {
		return err.Error()
	}
	if len(raw) > 1000 {
		raw = append(raw[:1000], "…"...)
	}
	return string(raw)
}
