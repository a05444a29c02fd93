package auth

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tare-oci/tare/internal/atomicfile"
	"github.com/tare-oci/tare/internal/sys/filelock"
)

// Save keeps c for later, as docker login does: in the helper that the first file of Paths names for its registry, otherwise
// in that file itself, which gets mode 0600 and keeps whatever else is in it. It returns where the credential is now.
func (f *Files) Save(ctx context.Context, c Credential) (where string, err error) {
	if c.Anonymous() {
		return "", errors.New("save credential: it is empty")
	}
	err = f.edit(ctx, func(a *authFile) error {
		server := serverName(c.origin)
		helper, _ := a.helperFor(c.origin, "")
		e := authEntry{IdentityToken: c.secret.IdentityToken, RegistryToken: c.secret.RegistryToken}
		if c.secret.Username != "" || c.secret.Password != "" {
			e.Auth = base64.StdEncoding.EncodeToString([]byte(c.secret.Username + ":" + c.secret.Password))
		}
		where = a.path
		if helper != "" {
			if err := storeInHelper(ctx, helper, server, c.secret); err != nil {
				return err
			}
			where, e = "docker-credential-"+helper, authEntry{}
		}
		raw, err := json.Marshal(e)
		if err != nil {
			return err
		}
		a.forget(c.origin)
		a.auths[server] = raw
		return nil
	})
	return where, err
}

func storeInHelper(ctx context.Context, helper, server string, s Secret) error {
	r := helperReply{ServerURL: server, Username: s.Username, Secret: s.Password}
	switch {
	case s.RegistryToken != "":
		return fmt.Errorf("docker-credential-%s cannot keep a registry token", helper)
	case s.IdentityToken != "":
		r.Username, r.Secret = tokenUser, s.IdentityToken
	}
	in, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = runHelper(ctx, helper, "store", string(in))
	return err
}

// forget removes what is kept for a whole registry, under whatever spelling, and reports whether there was something.
func (a *authFile) forget(o Origin) bool {
	found := false
	for name := range a.auths {
		if k := parseKey(name); k.path == "" && k.matches(o, "") {
			delete(a.auths, name)
			found = true
		}
	}
	return found
}

// Erase forgets the credential of a registry, as docker logout does, in the place where Save would put it. found is false if
// there was none. It is an error if another file still has one.
func (f *Files) Erase(ctx context.Context, o Origin) (found bool, err error) {
	if len(f.Paths) == 0 {
		return false, nil
	}
	if _, err := os.Stat(f.Paths[0]); err == nil {
		err = f.edit(ctx, func(a *authFile) error {
			found = a.forget(o)
			helper, server := a.helperFor(o, "")
			if helper == "" {
				return nil
			}
			_, err := runHelper(ctx, helper, "erase", server)
			if errors.Is(err, errHelperNotFound) {
				return nil
			}
			found = true
			return err
		})
		if err != nil {
			return found, err
		}
	}
	c, err := f.Find(ctx, o, "")
	if err == nil && !c.Anonymous() {
		err = fmt.Errorf("log out of %s: there is another credential in %s", o, c.Name())
	}
	return found, err
}

// edit changes the first file, alone among the processes of tare that do so.
func (f *Files) edit(ctx context.Context, change func(*authFile) error) error {
	if len(f.Paths) == 0 {
		return errors.New("save credential: there is no file for it: neither HOME, DOCKER_CONFIG nor REGISTRY_AUTH_FILE is set")
	}
	path := f.Paths[0]
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // the file is replaced, not a link to it
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("save credential: %w", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("save credential: %w", err)
	}
	defer dir.Close()
	for err = filelock.Try(dir); errors.Is(err, syscall.EWOULDBLOCK); err = filelock.Try(dir) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("save credential: %s is locked: %w", dir.Name(), ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	if err != nil {
		return fmt.Errorf("save credential: %w", err)
	}
	a, err := readAuthFile(path, false)
	if err != nil {
		return err
	}
	if a.auths == nil {
		a.auths = map[string]json.RawMessage{}
	}
	if err := change(a); err != nil {
		return err
	}
	return a.write()
}

// write replaces the file.
func (a *authFile) write() error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(a.auths); err != nil {
		return fmt.Errorf("save credential: %w", err)
	}
	if a.top == nil {
		a.top = map[string]json.RawMessage{}
	}
	a.top["auths"] = bytes.Clone(b.Bytes())
	b.Reset()
	e.SetIndent("", "\t")
	if err := e.Encode(a.top); err != nil {
		return fmt.Errorf("save credential: %w", err)
	}
	if err := atomicfile.Write(a.path, b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("save credential: %w", err)
	}
	return nil
}
