package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/tare-oci/tare/internal/ijson"
)

const maxAuthFile = 4 << 20 // bytes of config.json or auth.json

// hubKey is how Docker names Docker Hub in its files and to its helpers.
const hubKey = "https://index.docker.io/v1/"

// Files is the Keychain in the files of Docker and podman, and in the credential helpers that they name. Save and Erase work
// on the first file of Paths. A file that does not exist has nothing in it; one that cannot be read or parsed is an error.
type Files struct {
	// Paths are config.json or auth.json files in the order in which they are asked; the first that has a credential decides.
	Paths []string
	// Legacy is a .dockercfg, which has the content of "auths" alone. It is asked last.
	Legacy string
}

// DefaultFiles returns the files at their usual places: $REGISTRY_AUTH_FILE alone if that is set, otherwise config.json in
// $DOCKER_CONFIG or ~/.docker, then the auth.json files of podman, then ~/.dockercfg. getenv may be nil: os.Getenv.
func DefaultFiles(getenv func(string) string) *Files {
	if getenv == nil {
		getenv = os.Getenv
	}
	if f := getenv("REGISTRY_AUTH_FILE"); f != "" {
		return &Files{Paths: []string{f}}
	}
	f, home := &Files{}, getenv("HOME")
	docker := getenv("DOCKER_CONFIG")
	if docker == "" && home != "" {
		docker, f.Legacy = filepath.Join(home, ".docker"), filepath.Join(home, ".dockercfg")
	}
	if docker != "" {
		f.Paths = append(f.Paths, filepath.Join(docker, "config.json"))
	}
	run := "/run/containers/" + strconv.Itoa(os.Getuid())
	if d := getenv("XDG_RUNTIME_DIR"); d != "" {
		run = filepath.Join(d, "containers")
	}
	f.Paths = append(f.Paths, filepath.Join(run, "auth.json"))
	config := getenv("XDG_CONFIG_HOME")
	if config == "" && home != "" {
		config = filepath.Join(home, ".config")
	}
	if config != "" {
		f.Paths = append(f.Paths, filepath.Join(config, "containers/auth.json"))
	}
	return f
}

// authFile is what one file says. Names that are not here are kept in top.
type authFile struct {
	path    string
	top     map[string]json.RawMessage
	auths   map[string]json.RawMessage
	store   string            // credsStore
	helpers map[string]string // credHelpers
}

// authEntry is an element of auths.
type authEntry struct {
	Auth          string `json:"auth,omitempty"` // base64 of USER:PASSWORD
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

// readAuthFile reads a file; one that does not exist is empty.
func readAuthFile(path string, legacy bool) (*authFile, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return parseAuthFile(path, []byte("{}"), legacy)
	}
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxAuthFile+1))
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	if len(data) > maxAuthFile {
		return nil, fmt.Errorf("read credentials: %s has more than %d bytes", path, maxAuthFile)
	}
	if len(strings.TrimSpace(string(data))) == 0 {
		data = []byte("{}")
	}
	return parseAuthFile(path, data, legacy)
}

func parseAuthFile(path string, data []byte, legacy bool) (*authFile, error) {
	bad := func(what string, err error) (*authFile, error) {
		return nil, fmt.Errorf("read credentials: %s: %s%w", path, what, err)
	}
	a := &authFile{path: path}
	if err := ijson.Unmarshal(data, &a.top); err != nil {
		return bad("", err)
	}
	if legacy {
		a.auths = a.top
		return a, nil
	}
	for _, part := range []struct {
		name string
		to   any
	}{{"auths", &a.auths}, {"credsStore", &a.store}, {"credHelpers", &a.helpers}} {
		if raw, ok := a.top[part.name]; ok {
			if err := json.Unmarshal(raw, part.to); err != nil {
				return bad(part.name+": ", err)
			}
		}
	}
	return a, nil
}

// key is a name of auths or credHelpers, taken apart.
type key struct {
	scheme string // empty: any
	host   string // lower case, without the default port; docker.io for all names of Docker Hub
	path   string // without slashes around it
}

// parseKey normalises a name: Docker wrote URLs with /v1/ or /v2/ once, podman adds paths of repositories.
func parseKey(s string) key {
	var k key
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		k.scheme, s = strings.ToLower(scheme), rest
	}
	k.host, k.path, _ = strings.Cut(s, "/")
	k.host = strings.ToLower(k.host)
	if k.scheme != "http" {
		k.host = strings.TrimSuffix(k.host, ":443")
	}
	if k.scheme != "https" {
		k.host = strings.TrimSuffix(k.host, ":80")
	}
	if k.path = strings.Trim(k.path, "/"); k.path == "v1" || k.path == "v2" {
		k.path = ""
	}
	k.host = hubName(k.host)
	return k
}

func hubName(host string) string {
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		return "docker.io"
	}
	return host
}

// matches reports whether the key is for a repository at o. A key with https:// is not for a registry without TLS.
func (k key) matches(o Origin, repository string) bool {
	if k.scheme != "" && k.scheme != o.scheme || k.host != hubName(o.Host()) {
		return false
	}
	rest, ok := strings.CutPrefix(repository, k.path)
	return k.path == "" || ok && (rest == "" || rest[0] == '/')
}

// best returns the name in m with the longest path that is for a repository at o.
func best[V any](m map[string]V, o Origin, repository string) (name string, found bool) {
	names := make([]string, 0, len(m))
	for n := range m {
		if parseKey(n).matches(o, repository) {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return "", false
	}
	return slices.MinFunc(names, func(a, b string) int {
		if d := len(parseKey(b).path) - len(parseKey(a).path); d != 0 {
			return d
		}
		if (a == serverName(o)) != (b == serverName(o)) {
			if a == serverName(o) {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	}), true
}

// serverName is how Docker names o in its files and to helpers.
func serverName(o Origin) string {
	if hubName(o.Host()) == "docker.io" {
		return hubKey
	}
	return o.Host()
}

// helperFor returns the helper that has the credential for o, and what o is called there; an empty helper: none, auths has it.
func (a *authFile) helperFor(o Origin, repository string) (helper, server string) {
	if name, ok := best(a.helpers, o, repository); ok && a.helpers[name] != "" {
		if parseKey(name).path != "" {
			return a.helpers[name], name
		}
		return a.helpers[name], serverName(o)
	}
	return a.store, serverName(o)
}

// find looks into one file and its helpers.
func (a *authFile) find(ctx context.Context, o Origin, repository string) (Credential, error) {
	if helper, server := a.helperFor(o, repository); helper != "" {
		s, err := askHelper(ctx, helper, server)
		if err != nil {
			return Credential{}, fmt.Errorf("%w (named in %s)", err, a.path)
		}
		if s != (Secret{}) {
			return NewCredential(o, s, fmt.Sprintf("docker-credential-%s, %s", helper, server))
		}
	}
	name, ok := best(a.auths, o, repository)
	if !ok {
		return Credential{}, nil
	}
	s, err := decodeEntry(a.auths[name])
	if err != nil {
		return Credential{}, fmt.Errorf("read credentials: %s: auths of %.200q: %w", a.path, name, err)
	}
	if s == (Secret{}) {
		return Credential{}, nil
	}
	return NewCredential(o, s, fmt.Sprintf("%s, auths of %q", a.path, name))
}

// decodeEntry decodes an element of auths. An empty one says that a helper has the credential.
func decodeEntry(raw json.RawMessage) (Secret, error) {
	var e authEntry
	if err := json.Unmarshal(raw, &e); err != nil {
		return Secret{}, errors.New("want an object of strings")
	}
	s := Secret{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
	if e.Auth == "" {
		return s, nil
	}
	text, err := base64.StdEncoding.DecodeString(e.Auth)
	if err != nil {
		text, err = base64.RawStdEncoding.DecodeString(e.Auth)
	}
	user, password, ok := strings.Cut(string(text), ":")
	if err != nil || !ok {
		return Secret{}, errors.New("auth is not base64 of USER:PASSWORD")
	}
	s.Username, s.Password = user, strings.Trim(password, "\x00")
	if s.Username == "" && s.Password == "" && s.IdentityToken == "" && s.RegistryToken == "" {
		return Secret{}, nil
	}
	return s, nil
}

// Find implements Keychain.
func (f *Files) Find(ctx context.Context, o Origin, repository string) (Credential, error) {
	if o == (Origin{}) {
		return Credential{}, errors.New("find credential: no origin")
	}
	for _, path := range f.Paths {
		c, err := findIn(ctx, path, false, o, repository)
		if err != nil || !c.Anonymous() {
			return c, err
		}
	}
	if f.Legacy == "" {
		return Credential{}, nil
	}
	return findIn(ctx, f.Legacy, true, o, repository)
}

func findIn(ctx context.Context, path string, legacy bool, o Origin, repository string) (Credential, error) {
	a, err := readAuthFile(path, legacy)
	if err != nil {
		return Credential{}, err
	}
	return a.find(ctx, o, repository)
}
