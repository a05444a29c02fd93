package descriptor

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

func TestName(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for _, c := range []struct {
		fd   int
		want string
	}{{int(f.Fd()), `^file\[[0-9a-f]+:[0-9a-f]+\]$`}, {int(r.Fd()), `^pipe:\[\d+\]$`}, {999, `^$`}} {
		if got := Name(os.Getpid(), c.fd); !regexp.MustCompile(c.want).MatchString(got) {
			t.Errorf("descriptor %d: %q, want %s", c.fd, got, c.want)
		}
	}
	if Name(os.Getpid(), int(r.Fd())) != Name(os.Getpid(), int(w.Fd())) {
		t.Error("the ends of a pipe have different names")
	}
}
