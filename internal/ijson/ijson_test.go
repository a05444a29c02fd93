package ijson

import (
	"strings"
	"testing"
)

type embedded struct {
	Version int `json:"schemaVersion"`
}

type document struct {
	embedded
	Embedded
	Name  string            `json:"name,omitempty"`
	Items []item            `json:"items"`
	Map   map[string]string `json:"map"`
	Next  *item             `json:"next"`
	Plain int
}

// Embedded has a JSON name of its own that the outer struct shows.
type Embedded struct {
	OS string `json:"os"`
}

type item struct {
	Size int64 `json:"size"`
}

func TestUnmarshal(t *testing.T) {
	for _, c := range []struct{ in, err string }{
		{`{"name":"a","unknown":{"x":[1,2,{"y":null}]},"items":[{"size":1},{"size":2,"SIZES":0}],"os":"linux"}`, ""},
		{`{"map":{"a":"1","A":"2"},"other":1,"OTHER":2}`, ""},
		{`null`, ""},
		{`{"name":"a","name":"b"}`, `"name" twice`},
		{`{"unknown":{"a":1,"\u0061":2}}`, `"a" twice`},
		{`{"map":{"a":"1","a":"2"}}`, `"a" twice`},
		{`{"Name":"a"}`, `"Name" differs from "name" only in case`},
		{`{"OS":"a"}`, `"OS" differs from "os"`},
		{`{"items":[{"\u017fize":1}]}`, `differs from "size"`}, // ſ folds to s
		{`{"next":{"Size":1}}`, `"Size" differs`},
		{`{"plain":1}`, `"plain" differs`},
		{"{\"name\":\"\xff\"}", "invalid UTF-8"},
		{`{"x":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`, "deeper than 100"},
		{`{} {}`, "after top-level value"},
		{`{"name":1}`, "cannot unmarshal"},
		{``, "unexpected end"},
	} {
		err := Unmarshal([]byte(c.in), new(document))
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%.60s: error %v, want %q", c.in, err, c.err)
		}
	}
}
