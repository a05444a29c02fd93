package jsonw

import (
	"encoding/json"
	"testing"
)

func TestString(t *testing.T) {
	for _, s := range []string{"", "plain", "a\"b\\c", "\x00\x1f\n\t", "ä€😀", "\xff broken \xc3", "</script>\u2028"} {
		var got string
		out := String(nil, s)
		if err := json.Unmarshal(out, &got); err != nil {
			t.Errorf("%q became %s: %v", s, out, err)
			continue
		}
		std, _ := json.Marshal(s)
		var want string
		if err := json.Unmarshal(std, &want); err != nil || got != want {
			t.Errorf("%q became %q, want %q", s, got, want)
		}
	}
}

func TestObject(t *testing.T) {
	b := Strings(Key(Bool(Uint(Text([]byte{'{'}, "a", "x"), "b", 7), "c", true), "d"), []string{"y", "z"})
	b = append(Strings(Key(b, "e"), nil), '}')
	if want := `{"a":"x","b":7,"c":true,"d":["y","z"],"e":null}`; string(b) != want {
		t.Errorf("got %s, want %s", b, want)
	}
}
