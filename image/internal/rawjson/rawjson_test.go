package rawjson

import (
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
