package engine

import (
	"context"
	"fmt"
	"strings"

	"github.com/tare-oci/tare/distribution/auth"
	"github.com/tare-oci/tare/distribution/hosts"
	"github.com/tare-oci/tare/image/reference"
)

// hub is the registry of names without one.
const hub = "docker.io"

// registryOf returns the endpoint of a registry itself, by its host name or by what docker login takes: a URL or nothing.
func (r *registries) registryOf(host string) (hosts.Endpoint, error) {
	host = strings.TrimPrefix(strings.TrimPrefix(host, "https://"), "http://")
	host, _, _ = strings.Cut(host, "/")
	if host == "" {
		host = hub
	}
	n := reference.Name{Domain: host, Path: "library/any", Tag: "latest"}
	if _, err := reference.ParseName(n.String()); err != nil || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return hosts.Endpoint{}, fmt.Errorf("registry %.100q: want HOST[:PORT]", host)
	}
	if host == "index."+hub || host == "registry-1."+hub {
		n.Domain = hub
	}
	all, err := r.hosts.Endpoints(n)
	if err != nil {
		return hosts.Endpoint{}, err
	}
	for _, ep := range all {
		if !ep.Mirror {
			return ep, nil
		}
	}
	return hosts.Endpoint{}, fmt.Errorf("registry %s: its configuration has mirrors only", host)
}

// A Login is a credential that was kept.
type Login struct {
	Registry string `json:"registry"`
	Where    string `json:"where"`   // the file or the helper that has it
	Checked  bool   `json:"checked"` // the registry asked for it; otherwise it answers anybody
}

// Login asks the registry whether user and password are good, and keeps them if they are, as docker login does.
func (e *Engine) Login(ctx context.Context, host, user, password string) (*Login, error) {
	reg, err := newRegistries(nil, nil)
	if err != nil {
		return nil, err
	}
	ep, err := reg.registryOf(host)
	if err != nil {
		return nil, err
	}
	cred, err := auth.NewCredential(ep.Origin, auth.Secret{Username: user, Password: password}, "the command line")
	if err != nil {
		return nil, err
	}
	rt, err := reg.hosts.Transport(ep, auth.Static{Credential: cred})
	if err != nil {
		return nil, err
	}
	asked, err := auth.Verify(ctx, rt, ep.Base())
	if err != nil {
		return nil, err
	}
	where, err := reg.keys.Save(ctx, cred)
	if err != nil {
		return nil, err
	}
	return &Login{Registry: ep.Origin.Host(), Where: where, Checked: asked}, nil
}

// LoggedIn returns the name of the user that is kept for a registry; empty if there is none.
func (e *Engine) LoggedIn(ctx context.Context, host string) (string, error) {
	reg, err := newRegistries(nil, nil)
	if err != nil {
		return "", err
	}
	ep, err := reg.registryOf(host)
	if err != nil {
		return "", err
	}
	cred, err := reg.keys.Find(ctx, ep.Origin, "")
	return cred.Username(), err
}

// Logout forgets the credential of a registry. found is false if there was none.
func (e *Engine) Logout(ctx context.Context, host string) (registry string, found bool, err error) {
	reg, err := newRegistries(nil, nil)
	if err != nil {
		return "", false, err
	}
	ep, err := reg.registryOf(host)
	if err != nil {
		return "", false, err
	}
	found, err = reg.keys.Erase(ctx, ep.Origin)
	return ep.Origin.Host(), found, err
}
