package hosts

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/tare-oci/tare/distribution/auth"
)

const maxSteps = 1000 // of one attempt in a Trace

// Attempt is what happened at one endpoint. It has no secrets.
type Attempt struct {
	Registry   string   `json:"registry"` // scheme, host and port
	Repository string   `json:"repository"`
	Mirror     bool     `json:"mirror"`
	Source     string   `json:"source"`               // the file that names the endpoint
	Skipped    string   `json:"skipped,omitempty"`    // why it was not asked
	Credential string   `json:"credential,omitempty"` // the name of the credential that was found, or anonymous; empty: not asked for
	Steps      []string `json:"steps,omitempty"`      // what was done to prove who asks
	Error      string   `json:"error,omitempty"`      // why it was left
	Done       bool     `json:"done"`                 // it had what was wanted
}

// Trace records which endpoints were asked, with which credential, and why each was left. It may be used from several
// goroutines at once. The zero Trace is empty.
type Trace struct {
	mu       sync.Mutex
	attempts []*Attempt
}

type traceKey struct{}

// WithTrace returns a context in which Try records to t.
func WithTrace(ctx context.Context, t *Trace) context.Context {
	return context.WithValue(ctx, traceKey{}, t)
}

// Attempts returns copies of what was recorded, in order.
func (t *Trace) Attempts() []Attempt {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]Attempt, len(t.attempts))
	for i, a := range t.attempts {
		list[i] = *a
		list[i].Steps = slices.Clone(a.Steps)
	}
	return list
}

// add records an endpoint. t may be nil.
func (t *Trace) add(e Endpoint, skipped string) *Attempt {
	a := &Attempt{Registry: e.Origin.String(), Repository: e.Repository, Mirror: e.Mirror, Source: e.Source, Skipped: skipped}
	if t != nil {
		t.mu.Lock()
		t.attempts = append(t.attempts, a)
		t.mu.Unlock()
	}
	return a
}

// note records what auth reports.
func (t *Trace) note(a *Attempt, e auth.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.Step == auth.StepCredential && e.Err == nil {
		a.Credential = e.Credential
	}
	if len(a.Steps) < maxSteps {
		a.Steps = append(a.Steps, describe(e))
	}
}

// describe says in words what an event is.
func describe(e auth.Event) string {
	s := ""
	switch e.Step {
	case auth.StepChallenge:
		s = "the registry asks for " + e.Detail
	case auth.StepCredential:
		s = "credential: " + e.Credential
	case auth.StepToken:
		s = fmt.Sprintf("token from %s as %s", e.Realm, e.Credential)
	case auth.StepWithheld:
		s = fmt.Sprintf("%s is not sent to %s, %s", e.Credential, e.Realm, e.Detail)
	}
	if len(e.Scopes) > 0 {
		s += " for " + auth.FormatScopes(e.Scopes)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Try calls f with the endpoints of list that can do what is needed, in order, until one succeeds. An error of a mirror,
// whatever it is (a refusal with 401 or 403, too), leads on to the next endpoint. A push is tried at the first endpoint that
// takes pushes, and nowhere else. The error wraps those of all endpoints. What happens is recorded in the Trace of ctx, if
// it has one.
func Try(ctx context.Context, list []Endpoint, need Capability, f func(context.Context, Endpoint) error) error {
	t, _ := ctx.Value(traceKey{}).(*Trace)
	var failed tried
	for _, e := range list {
		if e.Can&need != need {
			t.add(e, fmt.Sprintf("used for %s only", e.Can))
			continue
		}
		a := t.add(e, "")
		inner := ctx
		if t != nil {
			inner = auth.WithObserver(ctx, func(e auth.Event) { t.note(a, e) })
		}
		err := f(inner, e)
		if t != nil {
			t.mu.Lock()
			if a.Done = err == nil; err != nil {
				a.Error = err.Error()
			}
			t.mu.Unlock()
		}
		if err == nil {
			return nil
		}
		failed = append(failed, attemptError{e, err})
		if ctx.Err() != nil || need&Push != 0 {
			break
		}
	}
	switch len(failed) {
	case 0:
		return fmt.Errorf("no endpoint is used for %s", need)
	case 1:
		return failed[0].err
	}
	return failed
}

type attemptError struct {
	e   Endpoint
	err error
}

// tried is the error of several endpoints. The last one, the registry itself, comes first: it is what most people mean.
type tried []attemptError

func (t tried) Error() string {
	last := t[len(t)-1]
	var b strings.Builder
	b.WriteString(last.err.Error())
	for _, a := range t[:len(t)-1] {
		fmt.Fprintf(&b, "; before that, mirror %s: %v", a.e.Origin, a.err)
	}
	return b.String()
}

// Unwrap returns the error of the last endpoint first.
func (t tried) Unwrap() []error {
	var list []error
	for _, a := range slices.Backward(t) {
		list = append(list, a.err)
	}
	return list
}
