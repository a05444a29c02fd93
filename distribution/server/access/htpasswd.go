package access

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// Limits on files of users and groups, and on how long a password that was right is remembered.
const (
	maxUserFile  = 16 << 20 // bytes
	maxCost      = 16       // of bcrypt: seconds for each login
	rememberFor  = 5 * time.Minute
	rememberMost = 10_000
)

// errPassword is what every refused login says, so that nobody learns which users there are.
var errPassword = errors.New("user or password is wrong")

// Users are the users of an htpasswd file (Apache's format, with bcrypt only). The file is looked at before each check and read
// again when it has changed. Its methods may be called from several goroutines at once.
type Users struct {
	file   watched
	hashes map[string][]byte
	dummy  []byte // for unknown users, as dear as the dearest of the file

	mu    sync.Mutex
	key   [32]byte // of the remembered passwords, which are only there as keyed hashes
	right map[[32]byte]time.Time
	slots chan struct{} // of the checks at once: bcrypt is meant to be slow
	now   func() time.Time
}

// OpenUsers reads an htpasswd file. The error names the line that is not understood.
func OpenUsers(path string) (*Users, error) {
	u := &Users{file: watched{path: path, limit: maxUserFile}, right: map[[32]byte]time.Time{}, slots: make(chan struct{}, 4), now: time.Now}
	rand.Read(u.key[:])
	if err := u.reload(); err != nil {
		return nil, err
	}
	return u, nil
}

// reload reads the file if it has changed; u.mu is held or nobody else knows u.
func (u *Users) reload() error {
	data, changed, err := u.file.read()
	if err != nil || !changed {
		return err
	}
	hashes, err := parseHtpasswd(data)
	if err != nil {
		return fmt.Errorf("read users: %s: %w", u.file.path, err)
	}
	cost := bcrypt.MinCost
	for _, h := range hashes {
		c, _ := bcrypt.Cost(h) // parseHtpasswd has seen that it has one
		cost = max(cost, c)
	}
	if c, err := bcrypt.Cost(u.dummy); err != nil || c != cost {
		if u.dummy, err = bcrypt.GenerateFromPassword([]byte(rand.Text()), cost); err != nil {
			return fmt.Errorf("read users: %w", err)
		}
	}
	u.hashes = hashes
	u.file.seen()
	return nil
}

// parseHtpasswd reads lines "user:hash". Empty lines and comments are skipped.
func parseHtpasswd(data []byte) (map[string][]byte, error) {
	hashes := map[string][]byte{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		user, hash, ok := strings.Cut(line, ":")
		if !ok || user == "" {
			return nil, fmt.Errorf("line %d: not user:hash", n)
		}
		if _, twice := hashes[user]; twice {
			return nil, fmt.Errorf("line %d: user %q is there twice", n, user)
		}
		cost, err := bcrypt.Cost([]byte(hash))
		if err != nil || !strings.HasPrefix(hash, "$2") {
			return nil, fmt.Errorf("line %d: the password of %q is not hashed by bcrypt (htpasswd -B does)", n, user)
		}
		if cost > maxCost {
			return nil, fmt.Errorf("line %d: cost %d of bcrypt, at most %d: each login would take too long", n, cost, maxCost)
		}
		hashes[user] = []byte(hash)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return hashes, nil
}

// Check returns nil if the password is right. The error is the same, after the same time, for a wrong password and for a
// user that does not exist. warn, if it is not nil, is called with the error of a changed file that could not be read: what
// was read before stays in force.
func (u *Users) Check(ctx context.Context, user, password string, warn func(error)) error {
	hash, known, remembered, key := u.lookup(user, password, warn)
	if remembered {
		return nil
	}
	select {
	case u.slots <- struct{}{}:
		defer func() { <-u.slots }()
	case <-ctx.Done():
		return fmt.Errorf("check password: %w", ctx.Err())
	}
	if err := bcrypt.CompareHashAndPassword(hash, []byte(password)); err != nil || !known {
		return errPassword
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.right) >= rememberMost {
		u.forget()
	}
	u.right[key] = u.now().Add(rememberFor)
	return nil
}

// lookup returns what to compare a password with, whether that is the hash of a user that there is, and whether the password
// was right a moment ago. The key covers the hash in the file: a new password ends the old one at once.
func (u *Users) lookup(user, password string, warn func(error)) (hash []byte, known, remembered bool, key [32]byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.file.tell(u.reload(), warn)
	if hash, known = u.hashes[user]; !known {
		hash = u.dummy
	}
	m := hmac.New(sha256.New, u.key[:])
	fmt.Fprintf(m, "%d:%s%d:%s%s", len(user), user, len(password), password, hash)
	m.Sum(key[:0])
	remembered = known && u.now().Before(u.right[key])
	return hash, known, remembered, key
}

// forget drops what is over, and everything if that is not enough.
func (u *Users) forget() {
	now := u.now()
	maps.DeleteFunc(u.right, func(_ [32]byte, until time.Time) bool { return !now.Before(until) })
	if len(u.right) >= rememberMost {
		clear(u.right)
	}
}

// Has reports whether there is such a user: a token of somebody who was removed is worth nothing any more.
func (u *Users) Has(user string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	_ = u.reload() // a broken file leaves what was read before; Check tells of it
	_, ok := u.hashes[user]
	return ok
}

// Groups are the groups of a file with lines "group: user user …" (Apache's AuthGroupFile). Like Users, it follows the file.
type Groups struct {
	file watched
	mu   sync.Mutex
	of   map[string][]string // groups by user
}

// OpenGroups reads a group file.
func OpenGroups(path string) (*Groups, error) {
	g := &Groups{file: watched{path: path, limit: maxUserFile}}
	if err := g.reload(); err != nil {
		return nil, err
	}
	return g, nil
}

func (g *Groups) reload() error {
	data, changed, err := g.file.read()
	if err != nil || !changed {
		return err
	}
	of := map[string][]string{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, users, ok := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return fmt.Errorf("read groups: %s: line %d: not group: user…", g.file.path, n)
		}
		for user := range strings.FieldsSeq(users) {
			of[user] = append(of[user], name)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read groups: %s: %w", g.file.path, err)
	}
	g.of = of
	g.file.seen()
	return nil
}

// Of returns the groups of a user, as the file has them now. warn is as for Users.Check.
func (g *Groups) Of(user string, warn func(error)) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.file.tell(g.reload(), warn)
	return slices.Clone(g.of[user])
}

// watched is a file that is read again when it has become another.
type watched struct {
	path      string
	limit     int64
	now, last os.FileInfo
	told      string
}

// tell passes on what is wrong with the file, once and not at each request.
func (w *watched) tell(err error, warn func(error)) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != w.told && err != nil && warn != nil {
		warn(err)
	}
	w.told = text
}

// read returns what is in the file, if it is not the one that was there when seen was called last.
func (w *watched) read() ([]byte, bool, error) {
	fi, err := os.Stat(w.path)
	if err != nil {
		return nil, false, err
	}
	if w.last != nil && same(fi, w.last) {
		return nil, false, nil
	}
	if !fi.Mode().IsRegular() {
		return nil, false, fmt.Errorf("read %s: not a regular file", w.path)
	}
	if fi.Size() > w.limit {
		return nil, false, fmt.Errorf("read %s: %d bytes, at most %d", w.path, fi.Size(), w.limit)
	}
	w.now = fi
	data, err := os.ReadFile(w.path)
	return data, true, err
}

// seen says that what read returned was understood.
func (w *watched) seen() { w.last = w.now }
