package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/distribution/auth"
	"github.com/tare-oci/tare/distribution/client"
	"github.com/tare-oci/tare/distribution/hosts"
	"github.com/tare-oci/tare/distribution/transfer"
	"github.com/tare-oci/tare/image/content"
	"github.com/tare-oci/tare/image/reference"
)

// A Trace is one step on the way to a registry's content, for people who ask why it went another way than they thought.
type Trace struct {
	Endpoint string `json:"endpoint"`
	Step     string `json:"step"`
	Detail   string `json:"detail,omitempty"`
	Error    string `json:"error,omitempty"` // why the next endpoint is asked, or nobody
}

// registries is how this process reaches registries.
type registries struct {
	hosts *hosts.Config
	keys  *auth.Files
	warn  func(string)
	trace func(Trace)

	limits client.Limits
}

// registries reads the files that say how registries are reached. warn and trace may be nil.
func newRegistries(warn func(string), trace func(Trace)) (*registries, error) {
	o := hosts.DefaultOptions(nil)
	o.UserAgent = "tare"
	c, err := hosts.Load(o)
	if err != nil {
		return nil, err
	}
	if trace == nil {
		trace = func(Trace) {}
	}
	limits, err := readLimits()
	if err != nil {
		return nil, err
	}
	return &registries{limits: limits.registry, hosts: c, keys: auth.DefaultFiles(nil), warn: warn, trace: trace}, nil
}

// repository returns the repository of a name at one endpoint.
func (r *registries) repository(ep hosts.Endpoint) (*client.Repository, error) {
	c, err := r.client(ep, r.keys)
	if err != nil {
		return nil, err
	}
	return c.Repository(ep.Repository)
}

func (r *registries) client(ep hosts.Endpoint, keys auth.Keychain) (*client.Client, error) {
	httpClient, err := r.hosts.Client(ep, keys)
	if err != nil {
		return nil, err
	}
	return client.New(client.Options{Base: ep.Base(), HTTP: httpClient, Elsewhere: httpClient.Transport, UserAgent: "tare", Limits: r.limits, Warn: r.warn})
}

// digestOnly is a mirror that is not trusted to know which digest a tag stands for.
type digestOnly struct{ *client.Repository }

func (d digestOnly) Resolve(ctx context.Context, ref string) (v1.Descriptor, error) {
	if reference.CheckDigest(digest.Digest(ref)) != nil {
		return v1.Descriptor{}, errors.New("its configuration lets it be asked for digests only, not for tags")
	}
	return d.Repository.Resolve(ctx, ref)
}

// source returns where the content of a name is to be had: its mirrors and its registry.
func (r *registries) source(n reference.Name) (*transfer.Endpoints, error) {
	all, err := r.hosts.Endpoints(n)
	if err != nil {
		return nil, err
	}
	src := &transfer.Endpoints{Tell: func(endpoint, what string, err error) {
		t := Trace{Endpoint: endpoint, Step: what}
		if err != nil {
			t.Error = err.Error()
		}
		r.trace(t)
	}}
	for _, ep := range all {
		if ep.Can&hosts.Pull == 0 {
			r.trace(Trace{Endpoint: ep.String(), Step: "skip", Detail: "not for pulls by " + ep.Source})
			continue
		}
		repo, err := r.repository(ep)
		if err != nil {
			return nil, err
		}
		one := transfer.Endpoint{Name: ep.String(), Source: repo}
		if ep.Can&hosts.Resolve == 0 {
			one.Source = digestOnly{repo}
		}
		src.List = append(src.List, one)
	}
	return src, nil
}

// target returns where a name is pushed to: the registry itself if it takes pushes, else the first endpoint that does.
func (r *registries) target(n reference.Name) (*client.Repository, error) {
	ep, err := r.targetOf(n)
	if err != nil {
		return nil, err
	}
	r.trace(Trace{Endpoint: ep.String(), Step: "push", Detail: "by " + ep.Source})
	return r.repository(*ep)
}

func (r *registries) targetOf(n reference.Name) (*hosts.Endpoint, error) {
	all, err := r.hosts.Endpoints(n)
	if err != nil {
		return nil, err
	}
	var found *hosts.Endpoint
	for i, ep := range all {
		if ep.Can&hosts.Push != 0 && (found == nil || found.Mirror && !ep.Mirror) {
			found = &all[i]
		}
	}
	if found == nil {
		return nil, fmt.Errorf("push %s: its configuration has no endpoint that takes pushes", n)
	}
	return found, nil
}

// observe returns a context whose requests tell the trace what is done to prove who asks.
func (r *registries) observe(ctx context.Context) context.Context {
	return auth.WithObserver(ctx, func(e auth.Event) {
		t := Trace{Endpoint: e.Registry.String(), Step: string(e.Step), Detail: e.Detail}
		switch e.Step {
		case auth.StepCredential:
			t.Detail = e.Credential
		case auth.StepToken:
			t.Detail = strings.TrimSpace("from " + e.Realm.String() + " with " + e.Credential + " " + e.Detail)
		case auth.StepWithheld:
			t.Detail = strings.TrimSpace(e.Credential + " not sent to " + e.Realm.String() + ": " + e.Detail)
		}
		if e.Err != nil {
			t.Error = e.Err.Error()
		}
		r.trace(t)
	})
}

// tagOrDigest returns what a registry calls the content of a name: of a tag and a digest the digest counts.
func tagOrDigest(n reference.Name) string {
	if n.Digest != "" {
		return n.Digest.String()
	}
	return n.Tag
}

// resolve finds what a name stands for.
func resolveAt(ctx context.Context, src content.Source, n reference.Name) (v1.Descriptor, error) {
	d, err := src.Resolve(ctx, tagOrDigest(n))
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("image %s: %w", n, err)
	}
	return d, nil
}
