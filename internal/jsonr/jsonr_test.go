package jsonr

import (
	"encoding/json"
	"testing"
)

// FuzzRaw: what is read as a value of any type is JSON, and its text is kept to the byte. Names that occur twice and
// deep nesting, which encoding/json takes, are refused.
func FuzzRaw(f *testing.F) {
	for _, s := range []string{`1`, ` [1, "a\u00e9\n", null] `, `{"a":{"b":[-1.5e3,true]}}`, `{"a":1,"a":2}`, `"\ud83d\ude00"`, `01`, `"`, "\"\xff\""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var raw []byte
		d := New(text, nil)
		Raw(d, &raw)
		if d.End() != nil {
			return
		}
		if !json.Valid([]byte(text)) || !json.Valid(raw) {
			t.Fatalf("accepted %q as %q", text, raw)
		}
	})
}

func TestNames(t *testing.T) {
	read := func(fold func(string) string) (n int, err error) {
		d := New(`{"N": 7, "other": [{}]}`, fold)
		d.Object(func(name string) {
			if name == "n" {
				Signed(d, &n)
			} else {
				d.Skip()
			}
		})
		return n, d.End()
	}
	if n, err := read(nil); n != 0 || err != nil {
		t.Errorf("to the letter: %d, %v", n, err)
	}
	lower := func(name string) string { return map[string]string{"N": "n"}[name] }
	if n, err := read(lower); n != 7 || err != nil {
		t.Errorf("folded: %d, %v", n, err)
	}
}

func TestErrors(t *testing.T) {
	d := New(`{"a": [1, {"b c": "x"}]}`, nil)
	d.Object(func(string) {
		var list []struct{}
		List(d, &list, func(d *Decoder, _ *struct{}) {
			if len(d.path) > 0 && d.path[len(d.path)-1].index == 0 {
				d.Skip()
				return
			}
			d.Object(func(string) {
				var n int
				Signed(d, &n)
			})
		})
	})
	const want = `a[1]["b c"]: want an integer, got "x"`
	if err := d.End(); err == nil || err.Error() != want || d.Err() != err {
		t.Errorf("got %v, want %s", err, want)
	}
}
