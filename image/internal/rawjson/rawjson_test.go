package rawjson

import (
	"bytes"
	"strings"
	"testing"
)

func TestObject(t *testing.T) {
	o, err := Parse([]byte(`{ "z": 1.50, "unknown": {"b" : [1,  2], "a":"<&>"}, "x": null }`))
	if err != nil {
		t.Fatal(err)
	}
	child, err := o.Object("unknown")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{child.Set("c", "<"), o.Set("x", 5), o.Set("unknown", child), o.Set("new", []string{"&"})} {
		if err != nil {
			t.Error(err)
		}
	}
	got, err := o.MarshalJSON()
	if want := `{"z":1.50,"unknown":{"b":[1,  2],"a":"<&>","c":"<"},"x":5,"new":["&"]}`; err != nil || string(got) != want {
		t.Errorf("wrote %s, %v\nwant  %s", got, err, want)
	}
	o.Delete("z")
	if o.Get("z") != nil || o.Len() != 3 || strings.Join(o.Names(), " ") != "unknown x new" {
		t.Errorf("after Delete: %v", o.Names())
	}
	if list, err := child.Array("b"); err != nil || len(list) != 2 {
		t.Errorf("array %s, %v", list, err)
	}
}

func TestParseErrors(t *testing.T) {
	for _, raw := range []string{"", "null", "[]", `{"a":1,"a":2}`, `{"a":1} x`, "{\"\xff\":1}", strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200)} {
		if o, err := Parse([]byte(raw)); err == nil {
			t.Errorf("%.20q: parsed as %v", raw, o.Names())
		}
	}
}

// FuzzParse writes again what it read: the same values in the same order.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"a": 1.0, "b": {"c":[ ]}, "d": "\u003c"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		o, err := Parse(raw)
		if err != nil {
			return
		}
		out, err := o.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(out)
		if err != nil {
			t.Fatalf("%q became %q: %v", raw, out, err)
		}
		if second, err := again.MarshalJSON(); err != nil || !bytes.Equal(out, second) {
			t.Errorf("%q became %q, then %q, %v", raw, out, second, err)
		}
	})
}
