package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

const (
	helperTimeout = 2 * time.Minute // helpers may ask the user for a passphrase
	maxHelper     = 1 << 20         // bytes of a helper's output
)

// helperNotFound is what helpers print by convention (github.com/docker/docker-credential-helpers, credentials/error.go).
const helperNotFound = "credentials not found in native keychain"

// helperReply is what get prints and store reads.
type helperReply struct {
	ServerURL string
	Username  string
	Secret    string
}

// tokenUser in place of a user's name says that the secret is an identity token.
const tokenUser = "<token>"

// askHelper runs docker-credential-HELPER get. Without an error the empty secret means that it has none. A helper that is
// missing or fails is an error: what it would have said is not known, and asking elsewhere could show one registry the
// credential of another (CVE-2021-41092).
func askHelper(ctx context.Context, helper, server string) (Secret, error) {
	out, err := runHelper(ctx, helper, "get", server)
	if errors.Is(err, errHelperNotFound) {
		return Secret{}, nil
	}
	if err != nil {
		return Secret{}, err
	}
	var r helperReply
	if err := json.Unmarshal(out, &r); err != nil {
		return Secret{}, fmt.Errorf("docker-credential-%s get: its output is not the JSON of a credential", helper)
	}
	if r.ServerURL != "" && parseKey(r.ServerURL).host != parseKey(server).host {
		return Secret{}, fmt.Errorf("docker-credential-%s get: asked for %s, it answered for %.200q", helper, server, r.ServerURL)
	}
	if r.Username == tokenUser {
		return Secret{IdentityToken: r.Secret}, nil
	}
	return Secret{Username: r.Username, Password: r.Secret}, nil
}

// Helper is the Keychain in docker-credential-NAME, for all registries.
type Helper string

// Find implements Keychain.
func (h Helper) Find(ctx context.Context, o Origin, _ string) (Credential, error) {
	s, err := askHelper(ctx, string(h), serverName(o))
	if err != nil || s == (Secret{}) {
		return Credential{}, err
	}
	return NewCredential(o, s, fmt.Sprintf("docker-credential-%s, %s", h, serverName(o)))
}

var errHelperNotFound = errors.New(helperNotFound)

// runHelper runs one action of a helper.
func runHelper(ctx context.Context, helper, action, input string) ([]byte, error) {
	name := "docker-credential-" + helper
	if strings.Trim(helper, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" {
		return nil, fmt.Errorf("credential helper %.100q: its name may have letters, digits, . _ -", helper)
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("run credential helper %s: %w", name, errors.Unwrap(err))
	}
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, action)
	cmd.Stdin = strings.NewReader(input)
	out, msg := &limitedBuffer{max: maxHelper}, &limitedBuffer{max: maxErrorReply, cut: true}
	cmd.Stdout, cmd.Stderr = out, msg
	cmd.WaitDelay = 2 * time.Second // a child of the helper may hold its output open
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("run %s %s: %w", name, action, ctx.Err())
	case out.over:
		return nil, fmt.Errorf("run %s %s: it prints more than %d bytes", name, action, maxHelper)
	case err == nil:
		return out.b.Bytes(), nil
	}
	said := strings.TrimSpace(out.b.String())
	if strings.Contains(said, helperNotFound) {
		return nil, errHelperNotFound
	}
	if said == "" {
		said = strings.TrimSpace(msg.b.String())
	}
	said = strings.Join(strings.Fields(said), " ")
	return nil, fmt.Errorf("run %s %s: %w: %s", name, action, err, said[:min(len(said), maxErrorReply)])
}

// limitedBuffer takes up to max bytes; more is an error, or with cut ignored.
type limitedBuffer struct {
	b    bytes.Buffer
	max  int
	cut  bool
	over bool
}

func (l *limitedBuffer) Write(p []byte) (int, error) {
	if room := l.max - l.b.Len(); len(p) > room {
		l.over = true
		l.b.Write(p[:max(room, 0)])
		if !l.cut {
			return 0, errors.New("too long")
		}
		return len(p), nil
	}
	return l.b.Write(p)
}
