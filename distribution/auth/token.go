package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	maxTokenReply = 1 << 20 // bytes
	maxToken      = 128 << 10
	maxErrorReply = 512 // bytes of a reply that are quoted
	tokenTimeout  = 30 * time.Second
	minTokenLife  = 60 * time.Second // also what a reply without expires_in means
	maxTokenLife  = 24 * time.Hour
	tokenAttempts = 3
	maxTokens     = 1000 // cached tokens of one Transport
	clientID      = "tare"
)

// ErrRefused is wrapped by errors of token servers that do not accept the credential, and by Verify.
var ErrRefused = errors.New("credential refused")

// TokenError is what a token server said in place of a token. It wraps ErrRefused if the status is 401 or 403.
type TokenError struct {
	Realm      string // URL without its query
	Credential string // Credential.Name of what was shown
	Status     int
	RetryAfter time.Duration // 0: not said
	Message    string        // of the server, shortened
}

func (e *TokenError) Error() string {
	s := fmt.Sprintf("get token from %s as %s: %d %s", e.Realm, e.Credential, e.Status, http.StatusText(e.Status))
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// Is reports whether target is ErrRefused and the status says so.
func (e *TokenError) Is(target error) bool {
	return target == ErrRefused && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden)
}

// token is what goes into the Authorization header.
type token struct {
	value    string
	basic    bool
	realm    string // and service, of the challenge that it is for
	scopes   []Scope
	until    time.Time // by the local clock; zero: no end
	withheld error     // why it is an anonymous one although there is a credential
}

func basicValue(c Credential) string {
	return base64.StdEncoding.EncodeToString([]byte(c.secret.Username + ":" + c.secret.Password))
}

// token returns a token for the scopes of ctx and those of asked. It is from the cache, unless that has only used, which was
// refused.
func (t *Transport) token(ctx context.Context, c Challenge, asked []Scope, used token) (token, error) {
	cred, err := t.credential(ctx)
	if err != nil {
		return token{}, err
	}
	if cred.secret.RegistryToken != "" {
		if used.value == cred.secret.RegistryToken {
			return token{}, nil
		}
		return token{value: cred.secret.RegistryToken}, nil
	}
	e := t.entry(FormatScopes(scopesOf(ctx)))
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return token{}, ctx.Err()
	}
	key := c.Params["realm"] + " " + c.Params["service"]
	if e.token.realm == key && e.token.value != used.value && t.now().Before(e.token.until) && covers(e.token.scopes, asked) {
		return e.token, nil
	}
	scopes := MergeScopes(scopesOf(ctx), asked)
	if e.token.realm == key {
		scopes = MergeScopes(scopes, e.token.scopes)
	}
	if len(scopes) > maxScopes {
		return token{}, fmt.Errorf("registry %s: challenge asks for more than %d scopes", t.c.Origin, maxScopes)
	}
	got, err := t.fetch(ctx, c, scopes, cred)
	if err != nil {
		return token{}, err
	}
	got.realm = key
	e.token = got
	return got, nil
}

func (t *Transport) entry(key string) *entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[key]
	if e == nil {
		if len(t.entries) >= maxTokens {
			clear(t.entries)
		}
		e = &entry{turn: make(chan struct{}, 1)}
		t.entries[key] = e
	}
	return e
}

// fetch asks the token server.
func (t *Transport) fetch(ctx context.Context, c Challenge, scopes []Scope, cred Credential) (token, error) {
	r, err := t.realm(c.Params["realm"])
	if err != nil {
		err = fmt.Errorf("registry %s: %w", t.c.Origin, err)
		observe(ctx, Event{Registry: t.c.Origin, Step: StepToken, Scopes: scopes, Err: err})
		return token{}, err
	}
	var withheld error
	if r.distrust != "" && !cred.Anonymous() {
		withheld = fmt.Errorf("registry %s: %s is not sent to the token server %s, %s; allow it by realms = [%q] in registries.toml",
			t.c.Origin, cred, r.origin, r.distrust, r.origin.Host())
		observe(ctx, Event{Registry: t.c.Origin, Step: StepWithheld, Realm: r.origin, Credential: cred.Name(), Detail: r.distrust})
		cred = Credential{}
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	started := t.now()
	q := tokenRequest{t: t, r: r, service: c.Params["service"], scopes: scopes, cred: cred}
	reply, err := q.run(ctx)
	for attempt := 1; attempt < tokenAttempts && passing(err) && t.pause(ctx, attempt, err); attempt++ {
		reply, err = q.run(ctx)
	}
	observe(ctx, Event{Registry: t.c.Origin, Step: StepToken, Realm: r.origin, Credential: cred.Name(), Scopes: scopes, Err: err})
	if err != nil {
		if withheld != nil && errors.Is(err, ErrRefused) {
			err = withheld
		}
		return token{}, err
	}
	return token{value: reply.value, scopes: scopes, until: started.Add(reply.life), withheld: withheld}, nil
}

// passing reports whether a token server may answer better in a moment.
func passing(err error) bool {
	return status(err, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable,
		http.StatusGatewayTimeout) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// pause waits before another attempt, as long as the token server asks for; false: there is no time for that.
func (t *Transport) pause(ctx context.Context, attempt int, err error) bool {
	d := t.wait << (attempt - 1)
	var e *TokenError
	if errors.As(err, &e) {
		d = max(d, e.RetryAfter)
	}
	if end, ok := ctx.Deadline(); ok && time.Until(end) < d {
		return false
	}
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// tokenRequest is one exchange with a token server, in up to two forms.
type tokenRequest struct {
	t       *Transport
	r       realm
	service string
	scopes  []Scope
	cred    Credential
}

// run tries the forms that the credential allows: POST with an identity token; GET with a password or nothing. Where a server
// does not know the form, the other one is tried.
func (q tokenRequest) run(ctx context.Context) (tokenReply, error) {
	s := q.cred.secret
	q.t.mu.Lock()
	if q.t.refresh != "" && s.IdentityToken != "" {
		s.IdentityToken = q.t.refresh
	}
	q.t.mu.Unlock()
	if s.IdentityToken != "" {
		reply, err := q.post(ctx, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {s.IdentityToken}})
		if s.Password == "" || !status(err, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusUnauthorized) {
			return reply, err
		}
	}
	reply, err := q.get(ctx)
	if s.Password != "" && status(err, http.StatusNotFound, http.StatusMethodNotAllowed) {
		return q.post(ctx, url.Values{"grant_type": {"password"}, "username": {s.Username}, "password": {s.Password}})
	}
	return reply, err
}

// status reports whether err is a TokenError with one of the codes.
func status(err error, codes ...int) bool {
	var e *TokenError
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range codes {
		if e.Status == c {
			return true
		}
	}
	return false
}

func (q tokenRequest) get(ctx context.Context) (tokenReply, error) {
	u := *q.r.url
	v := u.Query()
	if q.service != "" {
		v.Set("service", q.service)
	}
	for _, s := range q.scopes {
		v.Add("scope", s.String())
	}
	if q.cred.secret.Username != "" {
		v.Set("account", q.cred.secret.Username)
	}
	u.RawQuery = v.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return tokenReply{}, err
	}
	if q.cred.secret.Password != "" {
		if err := authorize(r, q.r.origin, "Basic", basicValue(q.cred)); err != nil {
			return tokenReply{}, err
		}
	}
	return q.send(r)
}

func (q tokenRequest) post(ctx context.Context, form url.Values) (tokenReply, error) {
	form.Set("service", q.service)
	form.Set("client_id", clientID)
	if len(q.scopes) > 0 {
		form.Set("scope", FormatScopes(q.scopes))
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, q.r.url.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return tokenReply{}, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	reply, err := q.send(r)
	if err == nil && reply.refresh != "" && q.cred.secret.IdentityToken != "" {
		q.t.mu.Lock()
		q.t.refresh = reply.refresh
		q.t.mu.Unlock()
	}
	return reply, err
}

// send sends r without following redirects: a token server that wants a credential elsewhere is refused.
func (q tokenRequest) send(r *http.Request) (tokenReply, error) {
	if q.t.c.UserAgent != "" {
		r.Header.Set("User-Agent", q.t.c.UserAgent)
	}
	r.Header.Set("Accept", "application/json")
	shown := q.r.url.Scheme + "://" + q.r.url.Host + q.r.url.EscapedPath()
	resp, err := q.r.transport.RoundTrip(r)
	if err != nil {
		return tokenReply{}, fmt.Errorf("get token from %s: %w", shown, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenReply+1))
	if err != nil {
		return tokenReply{}, fmt.Errorf("get token from %s: %w", shown, err)
	}
	if resp.StatusCode != http.StatusOK {
		e := &TokenError{Realm: shown, Credential: q.cred.Name(), Status: resp.StatusCode, Message: errorMessage(body)}
		if n, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 20); err == nil {
			e.RetryAfter = time.Duration(n) * time.Second
		}
		if resp.StatusCode >= 300 && resp.StatusCode < 400 {
			e.Message = "redirects of token servers are not followed"
		}
		return tokenReply{}, e
	}
	if len(body) > maxTokenReply {
		return tokenReply{}, fmt.Errorf("get token from %s: the reply is longer than %d bytes", shown, maxTokenReply)
	}
	reply, err := parseReply(body, resp.Header.Get("Date"))
	if err != nil {
		return tokenReply{}, fmt.Errorf("get token from %s: %w", shown, err)
	}
	return reply, nil
}

// errorMessage takes what is for people out of an error reply.
func errorMessage(body []byte) string {
	var doc struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
		Details     string `json:"details"`
		Description string `json:"error_description"`
		Error       string `json:"error"`
	}
	s := string(body)
	if json.Unmarshal(body, &doc) == nil {
		for _, m := range []string{doc.Details, doc.Description, doc.Error} {
			if m != "" {
				s = m
			}
		}
		if len(doc.Errors) > 0 {
			s = strings.TrimPrefix(doc.Errors[0].Code+": "+doc.Errors[0].Message, ": ")
		}
	} else if strings.HasPrefix(strings.TrimSpace(s), "<") {
		return ""
	}
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }), " ")
	return strings.ToValidUTF8(s[:min(len(s), maxErrorReply)], "")
}

// tokenReply is what a token server gave.
type tokenReply struct {
	value, refresh string
	life           time.Duration // that remains
}

// parseReply reads a token server's reply. date is the server's clock (the Date header): issued_at is compared with it and
// not with the local clock, so that clocks may differ.
func parseReply(body []byte, date string) (tokenReply, error) {
	var doc struct {
		Token        string          `json:"token"`
		AccessToken  string          `json:"access_token"`
		RefreshToken string          `json:"refresh_token"`
		ExpiresIn    json.RawMessage `json:"expires_in"`
		IssuedAt     string          `json:"issued_at"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return tokenReply{}, fmt.Errorf("decode reply: %w", err)
	}
	r := tokenReply{value: doc.AccessToken, refresh: doc.RefreshToken, life: minTokenLife}
	if r.value == "" {
		r.value = doc.Token
	}
	switch {
	case r.value == "":
		return tokenReply{}, errors.New("the reply has neither token nor access_token")
	case len(r.value) > maxToken || len(r.refresh) > maxToken:
		return tokenReply{}, fmt.Errorf("the token is longer than %d bytes", maxToken)
	case strings.ContainsFunc(r.value, func(c rune) bool { return c <= ' ' || c >= 0x7f }):
		return tokenReply{}, errors.New("the token has characters that no header may have")
	}
	if s, err := strconv.ParseFloat(strings.Trim(string(doc.ExpiresIn), `"`), 64); err == nil {
		s = min(max(s, minTokenLife.Seconds()), maxTokenLife.Seconds())
		r.life = time.Duration(s * float64(time.Second))
	}
	issued, err := time.Parse(time.RFC3339, doc.IssuedAt)
	now, err2 := http.ParseTime(date)
	if err == nil && err2 == nil && now.After(issued) {
		r.life -= now.Sub(issued) // a token from the server's cache
	}
	r.life -= min(10*time.Second, r.life/10) // time for the request that uses it
	return r, nil
}
