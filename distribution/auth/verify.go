package auth

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Verify asks the registry below base (GET base/v2/, the check of distribution-spec) through rt, a Transport with the
// credential in question. asked is false if the registry answers without wanting to know who asks: then the credential was
// not checked. The error wraps ErrRefused if the credential is wrong.
func Verify(ctx context.Context, rt http.RoundTripper, base *url.URL) (asked bool, err error) {
	u := *base
	u.Path, u.RawPath, u.RawQuery = strings.TrimSuffix(u.Path, "/")+"/v2/", "", ""
	seen := false
	ctx = WithObserver(ctx, func(e Event) { seen = seen || e.Step == StepChallenge })
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return false, err
	}
	resp, err := rt.RoundTrip(r)
	if err != nil {
		return seen, fmt.Errorf("log in to %s: %w", u.Host, err)
	}
	drain(resp)
	switch {
	case resp.StatusCode == http.StatusOK:
		return seen, nil
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		return seen, fmt.Errorf("log in to %s: %s: %w", u.Host, resp.Status, ErrRefused)
	}
	return seen, fmt.Errorf("log in to %s: GET %s: %s", u.Host, u.Path, resp.Status)
}
