package main

import (
	"strings"
	"testing"
)

const pkgOfSuite = "github.com/tare-oci/tare/test/x"

func failing(n int) string {
	var b strings.Builder
	b.WriteString(`{"Action":"start","Package":"` + pkgOfSuite + `"}` + "\n")
	for _, name := range []string{"TestA/a.b", "TestB", "TestC", "TestD"}[:n] {
		b.WriteString(`{"Action":"run","Package":"` + pkgOfSuite + `","Test":"` + name + `"}` + "\n")
		b.WriteString(`{"Action":"fail","Package":"` + pkgOfSuite + `","Test":"` + name + `"}` + "\n")
	}
	return b.String() + `{"Action":"fail","Package":"` + pkgOfSuite + `"}` + "\n"
}

func TestRetry(t *testing.T) {
	for _, test := range []struct {
		failures int
		passes   string
		want     string
		ok       bool
	}{
		{1, "TestA/a.b", "1 passed, 0 failed, 0 skipped", true},
		{2, "TestB", "1 passed, 1 failed, 0 skipped", false},
		{2, "", "0 passed, 2 failed, 0 skipped", false},
		{4, "TestB", "0 passed, 4 failed, 0 skipped", false}, // too many: nothing runs again
	} {
		var out strings.Builder
		s := newSummary(&out)
		if err := s.read(strings.NewReader(failing(test.failures))); err != nil {
			t.Fatal(err)
		}
		s.retry(func(pkg, name string) bool { return pkg == pkgOfSuite && name == test.passes })
		if ok := s.finish(); ok != test.ok || !strings.Contains(out.String(), test.want) {
			t.Errorf("%d failures, %q passes: %v\n%s", test.failures, test.passes, ok, out.String())
		}
	}
}

func TestEscape(t *testing.T) {
	if got := escape("a.b(c)"); got != `a\.b\(c\)` {
		t.Errorf("got %s", got)
	}
}
