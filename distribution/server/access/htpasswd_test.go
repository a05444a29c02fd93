package access

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

func TestParseHtpasswd(t *testing.T) {
	good := strings.TrimSpace(strings.TrimPrefix(string(htpasswd(t, "u")), "u:"))
	dear := strings.Replace(good, "$04$", "$17$", 1)
	for in, want := range map[string]string{
		"# comment\n\nu:" + good + "\r\nv:" + strings.Replace(good, "$2a$", "$2y$", 1) + "\n": "",
		"u:" + good + "\nv:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=":                                 `line 2: the password of "v" is not hashed by bcrypt`,
		"u:$apr1$vz0j8Zt1$FV7Jx8ZwYVbFqPyHl0Fyx/":                                             `line 1: the password of "u" is not`,
		"u:plain":                      `line 1: the password of "u" is not`,
		"u":                            "line 1: not user:hash",
		":" + good:                     "line 1: not user:hash",
		"u:" + dear:                    "line 1: cost 17 of bcrypt, at most 16",
		"u:" + good[:8]:                `line 1: the password of "u" is not`,
		"u:" + good + "\n#\nu:" + good: `line 3: user "u" is there twice`,
	} {
		_, err := parseHtpasswd([]byte(in))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), good[8:]) || strings.Contains(err.Error(), "plain")) {
			t.Errorf("a password is in %q", err)
		}
	}
}

func TestUsers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "htpasswd")
	write(t, file, htpasswd(t, "a", "b"))
	u, err := OpenUsers(file)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	var told []error
	check := func(user, password string, want bool) {
		t.Helper()
		if err := u.Check(ctx, user, password, func(err error) { told = append(told, err) }); (err == nil) != want || err != nil && err.Error() != errPassword.Error() {
			t.Errorf("%s: %v, want %v", user, err, want)
		}
	}
	for range 2 {
		check("a", secret+"a", true)
		check("a", secret+"b", false)
		check("b", secret+"b", true)
		check("unknown", secret+"a", false)
		check("", "", false)
		check("a", "", false)
	}
	if len(u.right) != 2 {
		t.Errorf("%d passwords are remembered", len(u.right))
	}
	for k := range u.right {
		if strings.Contains(string(k[:]), secret) {
			t.Error("a password is kept")
		}
	}
	later := time.Now().Add(rememberFor)
	u.now = func() time.Time { return later }
	if _, _, remembered, _ := u.lookup("a", secret+"a", nil); remembered {
		t.Error("a password is remembered for ever")
	}
	write(t, file, htpasswd(t, "b", "c"))
	check("a", secret+"a", false)
	check("c", secret+"c", true)
	write(t, file, []byte("nonsense"))
	check("c", secret+"c", true)
	check("c", secret+"c", true)
	if len(told) != 1 || !strings.Contains(told[0].Error(), "line 1") || !u.Has("c") || u.Has("a") {
		t.Errorf("a broken file: %v", told)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if told = nil; u.Check(ctx, "c", "x", func(err error) { told = append(told, err) }) == nil || len(told) == 0 {
		t.Errorf("a lost file: %v", told)
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	for range cap(u.slots) {
		u.slots <- struct{}{}
	}
	if err := u.Check(over, "c", "x", nil); err == nil || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("with every slot taken: %v", err)
	}
}

// TestUnknownUserTakesAsLong: the hash that an unknown user's password is compared with is as dear as the dearest.
func TestUnknownUserTakesAsLong(t *testing.T) {
	file := filepath.Join(t.TempDir(), "htpasswd")
	h, err := bcrypt.GenerateFromPassword([]byte("x"), 6)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, append(htpasswd(t, "a"), "b:"+string(h)+"\n"...))
	u, err := OpenUsers(file)
	if err != nil {
		t.Fatal(err)
	}
	hash, known, _, _ := u.lookup("unknown", "x", nil)
	if cost, err := bcrypt.Cost(hash); known || err != nil || cost != 6 {
		t.Errorf("compared with cost %d, %v", cost, err)
	}
}

func TestForget(t *testing.T) {
	u := &Users{right: map[[32]byte]time.Time{}, now: time.Now}
	for i := range rememberMost {
		u.right[[32]byte{byte(i), byte(i >> 8)}] = time.Now().Add(time.Hour)
	}
	u.right[[32]byte{0}] = time.Time{}
	if u.forget(); len(u.right) != rememberMost-1 {
		t.Errorf("%d left", len(u.right))
	}
	u.right[[32]byte{0}] = time.Now().Add(time.Hour)
	if u.forget(); len(u.right) != 0 {
		t.Errorf("%d left of too many", len(u.right))
	}
}

func TestGroups(t *testing.T) {
	file := filepath.Join(t.TempDir(), "groups")
	write(t, file, []byte("# x\n\ndevs: a b\nops:b\n"))
	g, err := OpenGroups(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(g.Of("b", nil), " "); got != "devs ops" {
		t.Errorf("b is in %s", got)
	}
	write(t, file, []byte("devs: a\n"))
	if got := g.Of("b", nil); len(got) != 0 {
		t.Errorf("b is still in %s", got)
	}
	var told error
	write(t, file, []byte("devs a\n"))
	if got := g.Of("a", func(err error) { told = err }); len(got) != 1 || told == nil || !strings.Contains(told.Error(), "line 1") {
		t.Errorf("a broken file: %s, %v", got, told)
	}
	if _, err := OpenGroups(file); err == nil {
		t.Error("a broken file is taken at the start")
	}
	if _, err := OpenGroups(filepath.Dir(file)); err == nil {
		t.Error("a directory is taken")
	}
}

func FuzzParseHtpasswd(f *testing.F) {
	f.Add([]byte("u:$2y$05$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		hashes, err := parseHtpasswd(data)
		for user, h := range hashes {
			if cost, cerr := bcrypt.Cost(h); user == "" || cerr != nil || cost > maxCost || err != nil {
				t.Errorf("%q: %q, %v", user, h, err)
			}
		}
	})
}
