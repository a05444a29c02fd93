package leaks

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestDiff(t *testing.T) {
	if d := (List{"a", "b", "b"}).Diff(List{"b", "a", "b"}); d != "" {
		t.Errorf("the same in another order: %q", d)
	}
	if d := (List{"a", "b", "b"}).Diff(List{"b", "c", "c"}); d != "+2 c\n-1 a\n-1 b\n" {
		t.Errorf("difference %q", d)
	}
}

func TestFinds(t *testing.T) {
	before, err := Own()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("sleep", "100")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	after, err := Own()
	if err != nil {
		t.Fatal(err)
	}
	d := before.Diff(after)
	for _, want := range []string{"descriptor /dev/null\n", " sleep S\n", "in net:["} {
		if !strings.Contains(d, want) {
			t.Errorf("%q is not in the difference:\n%s", want, d)
		}
	}
	if !HasDescendants() {
		t.Error("the process has no descendants")
	}
	c.Process.Kill()
	c.Wait()
	f.Close()
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("123"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Files(dir)
	if err != nil || len(l) != 2 || !strings.HasPrefix(l[1], "file "+dir+"/f -rw------- 3 bytes of ") {
		t.Errorf("%q, %v", l, err)
	}
	if l, err := Files(dir + "/none"); err != nil || len(l) != 0 {
		t.Errorf("%q, %v", l, err)
	}
}
