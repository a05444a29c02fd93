package engine

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "1": 1, "12b": 12, "1k": 1024, "1KB": 1024, "1KiB": 1024, "1.5m": 3 << 19, "64M": 64 << 20, "2g": 2 << 30, "1T": 1 << 40,
	} {
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "m", "-1", "1x", "1mm", "64 m", "nan", "inf", "9999999t", "0x10"} {
		if got, err := ParseSize(s); err == nil {
			t.Errorf("%q: %d", s, got)
		}
	}
}

func TestParseCPUs(t *testing.T) {
	for s, want := range map[string]int64{"1": 100000, "1.5": 150000, "0.01": 1000, "16": 1600000} {
		if got, err := ParseCPUs(s); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "0", "-1", "0.001", "x", "NaN", "1e9"} {
		if got, err := ParseCPUs(s); err == nil {
			t.Errorf("%q: %d", s, got)
		}
	}
}

func TestParseVolume(t *testing.T) {
	t.Chdir("/tmp")
	for s, want := range map[string]Volume{
		"/a:/b":              {"/a", "/b", nil},
		"./a/../b:/c/":       {"/tmp/b", "/c", nil},
		"/a:/b:ro,z":         {"/a", "/b", []string{"ro", "rprivate"}},
		"/a:/b:rslave,nodev": {"/a", "/b", []string{"nodev", "rslave"}},
		"/only":              {"", "/only", nil},
	} {
		if got, err := ParseVolume(s); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v; want %+v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "name:/b", "/a:b", "/a:/", "/a:/b:/c:ro", "/a:/b:what", "/a:/b:rshared", "rel", "/a:/b/../.."} {
		if got, err := ParseVolume(s); err == nil {
			t.Errorf("%q: %+v", s, got)
		}
	}
}

func TestReadEnvFile(t *testing.T) {
	t.Setenv("CALLERS", "v")
	path := filepath.Join(t.TempDir(), "env")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("\ufeffA=1\n#B=2\n\t C=a b # c\nCALLERS\nNOT_THERE_X\nD=\n")
	got, err := ReadEnvFile(path)
	if want := []string{"A=1", "C=a b # c", "CALLERS=v", "D="}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	for text, want := range map[string]string{"A B=1\n": ":1: variable", "ok=1\n=x\n": ":2: ", "A=\x00\n": "zero byte"} {
		write(text)
		if _, err := ReadEnvFile(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, s := range []string{"a", "a.b-c_D9", "0", strings.Repeat("x", 128)} {
		if err := checkName(s); err != nil {
			t.Error(err)
		}
	}
	for _, s := range []string{"", ".", "..", "-a", ".a", "_a", "a/b", "a b", "a\n", "é", strings.Repeat("x", 129)} {
		if checkName(s) == nil {
			t.Errorf("%q is allowed", s)
		}
	}
}

func TestWithoutLoopback(t *testing.T) {
	in := "# c\nnameserver 127.0.0.53\nnameserver ::1\nsearch x\nnameserver 192.0.2.1\noptions edns0\nnameserver fe80::1%eth0\n"
	out, servers := withoutLoopback([]byte(in))
	if want := "# c\nsearch x\nnameserver 192.0.2.1\noptions edns0\nnameserver fe80::1%eth0\n"; string(out) != want || servers != 2 {
		t.Errorf("%d servers in %q", servers, out)
	}
}

// The texts are those of the runtimes, from their versions in Debian 12 and from this repository.
func TestStartFailure(t *testing.T) {
	for text, want := range map[string]int{
		`exec: "nope": executable file not found in $PATH`:                                                          127,
		`runc run failed: unable to start container process: exec: "nope": executable file not found in $PATH`:      127,
		`runc run failed: unable to start container process: exec: "/x": stat /x: no such file or directory`:        127,
		"executable file `nope` not found in $PATH: No such file or directory":                                      127,
		`exec: "/etc/passwd": permission denied`:                                                                    126,
		`runc run failed: unable to start container process: exec: "/etc/passwd": permission denied`:                126,
		`exec: "/x": exec format error`:                                                                             126,
		"open executable: Operation not permitted":                                                                  126,
		"mount /a on /b: no such file or directory":                                                                 125,
		`error mounting "/a" to rootfs at "/b": mount /a:/b (via /proc/self/fd/6): exec: no such file or directory`: 125,
		"write cgroup memory.max: permission denied":                                                                125,
	} {
		if got := startFailure(text); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}

func TestMemory(t *testing.T) {
	for _, c := range []struct {
		l    Limits
		want string
	}{
		{Limits{Memory: -1}, "not negative"},
		{Limits{MemorySwap: 5}, "needs one of memory"},
		{Limits{Memory: 10, MemorySwap: 5}, "less than memory"},
		{Limits{Memory: 10, MemorySwap: -2}, "not negative"},
		{Limits{MemorySwap: -1}, ""},
		{Limits{Memory: 10, MemorySwap: -1}, ""},
	} {
		_, err := c.l.memory()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", c.l, err, c.want)
		}
	}
}
