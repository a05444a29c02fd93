package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestParseReply(t *testing.T) { // T3
	const now = "Sun, 22 Nov 2026 12:00:00 GMT"
	for _, c := range []struct {
		body  string
		value string
		life  time.Duration
		err   string
	}{
		{`{"token":"a"}`, "a", 54 * time.Second, ""},
		{`{"access_token":"b"}`, "b", 54 * time.Second, ""},
		{`{"token":"a","access_token":"a","expires_in":300}`, "a", 290 * time.Second, ""},
		{`{"token":"a","expires_in":5}`, "a", 54 * time.Second, ""},
		{`{"token":"a","expires_in":-5}`, "a", 54 * time.Second, ""},
		{`{"token":"a","expires_in":"300"}`, "a", 290 * time.Second, ""},
		{`{"token":"a","expires_in":1e300}`, "a", maxTokenLife - 10*time.Second, ""},
		{`{"token":"a","expires_in":300,"issued_at":"2026-11-22T11:59:00Z"}`, "a", 230 * time.Second, ""}, // from a cache
		{`{"token":"a","expires_in":300,"issued_at":"2026-11-22T13:59:00Z"}`, "a", 290 * time.Second, ""}, // skew
		{`{"token":"a","expires_in":300,"issued_at":"yesterday"}`, "a", 290 * time.Second, ""},
		{`{"token":"a\r\nX: y"}`, "", 0, "no header may have"},
		{`{"token":""}`, "", 0, "neither token nor access_token"},
		{`{"token":3}`, "", 0, "decode reply"},
		{`[]`, "", 0, "decode reply"},
		{`{"token":"` + strings.Repeat("a", maxToken+1) + `"}`, "", 0, "longer than"},
	} {
		got, err := parseReply([]byte(c.body), now)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%.60s: error %v, want %q", c.body, err, c.err)
			}
		} else if err != nil || got.value != c.value || got.life != c.life {
			t.Errorf("%.60s: %q, %s, %v, want %q, %s", c.body, got.value, got.life, err, c.value, c.life)
		}
	}
}

func FuzzTokenReply(f *testing.F) {
	f.Add([]byte(`{"token":"a","expires_in":300,"issued_at":"2026-11-22T11:59:00Z"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseReply(body, "Sun, 22 Nov 2026 12:00:00 GMT")
		if err == nil && (r.value == "" || strings.ContainsAny(r.value, "\r\n ") || r.life > maxTokenLife) {
			t.Errorf("%q is %+v", body, r)
		}
		errorMessage(body)
	})
}

// TestGrants: T4, T9: which secret goes where in which form.
func TestGrants(t *testing.T) {
	const basicAlice = "Basic YWxpY2U6c2VjcmV0"
	only := func(method string, status int) func(f *fake) http.HandlerFunc {
		return func(f *fake) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				if r.Method != method {
					w.WriteHeader(status)
					return
				}
				f.give(w, nil)
			}
		}
	}
	get := "GET account=alice&scope=repository%3Aa%3Apull&" + service + " " + basicAlice
	post := "POST client_id=tare&grant_type=password&password=secret&scope=repository%3Aa%3Apull&" + service + "&username=alice"
	refresh := "POST client_id=tare&grant_type=refresh_token&refresh_token=idt&scope=repository%3Aa%3Apull&" + service
	for _, c := range []struct {
		what   string
		secret Secret
		server func(f *fake) http.HandlerFunc
		want   []string
		err    string
	}{
		{"password", Secret{Username: "alice", Password: "secret"}, only("GET", 405), []string{get}, ""},
		{"password by POST where GET is unknown", Secret{Username: "alice", Password: "secret"}, only("POST", 405), []string{get, post}, ""},
		{"identity token", Secret{IdentityToken: "idt"}, only("POST", 404), []string{refresh}, ""},
		{"identity token and user", Secret{Username: "alice", IdentityToken: "idt"}, only("POST", 404), []string{refresh}, ""},
		{"identity token alone where POST is unknown", Secret{IdentityToken: "idt"}, only("GET", 404), []string{refresh}, "404 Not Found"},
		{"identity token refused, password", Secret{Username: "alice", Password: "secret", IdentityToken: "idt"}, only("GET", 401), []string{refresh, get}, ""},
		{"identity token where POST is unknown, password", Secret{Username: "alice", Password: "secret", IdentityToken: "idt"}, only("GET", 405), []string{refresh, get}, ""},
		{"a server in trouble", Secret{Username: "alice", Password: "secret"}, only("POST", 503), []string{get, get, get}, "503 Service Unavailable"},
		{"a redirect", Secret{Username: "alice", Password: "secret"}, only("POST", 307), []string{get}, "redirects of token servers are not followed"},
	} {
		f := newFake(t)
		f.token = c.server(f)
		_, err := f.get(f.transport(c.secret), "/v2/a/manifests/x", Repository("a", "pull"))
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v, want %q", c.what, err, c.err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: a secret is in the error: %v", c.what, err)
		}
		f.wantTokens(c.want...)
	}

	f := newFake(t) // T9: straight into the header, no token server
	f.valid["Bearer rt"] = true
	f.wantStatus(f.transport(Secret{RegistryToken: "rt"}), "/v2/", 200)
	f.wantLog("GET /v2/", "GET /v2/ Bearer rt")
	f.wantTokens()
}

// TestRefreshToken: a newer identity token replaces the stored one.
func TestRefreshToken(t *testing.T) {
	f := newFake(t)
	f.token = func(w http.ResponseWriter, _ *http.Request) { f.give(w, map[string]any{"refresh_token": "second"}) }
	rt := f.transport(Secret{IdentityToken: "first"})
	f.wantStatus(rt, "/v2/", 200, Repository("a", "pull"))
	f.wantStatus(rt, "/v2/", 200, Repository("b", "pull"))
	f.wantTokens("POST client_id=tare&grant_type=refresh_token&refresh_token=first&scope=repository%3Aa%3Apull&"+service,
		"POST client_id=tare&grant_type=refresh_token&refresh_token=second&scope=repository%3Ab%3Apull&"+service)
}

// TestWrongPassword: the error wraps ErrRefused and quotes the server.
func TestWrongPassword(t *testing.T) {
	f := newFake(t)
	f.password = "other"
	_, err := f.get(f.transport(Secret{Username: "alice", Password: "secret"}), "/v2/")
	if !errors.Is(err, ErrRefused) || !strings.HasSuffix(err.Error(), "as test: 401 Unauthorized: incorrect username or password") {
		t.Errorf("error %v", err)
	}
}

// TestTokenServerRecovers: a busy token server is asked again, unless it wants more time than there is.
func TestTokenServerRecovers(t *testing.T) {
	for after, want := range map[string]int{"0": 2, "1000": 1} {
		f := newFake(t)
		n := 0
		f.token = func(w http.ResponseWriter, _ *http.Request) {
			if n++; n == 1 {
				w.Header().Set("Retry-After", after)
				w.WriteHeader(http.StatusTooManyRequests)
				return
			}
			f.give(w, nil)
		}
		_, err := f.get(f.transport(Secret{}), "/v2/")
		var e *TokenError
		if n != want || (want == 1) != (errors.As(err, &e) && e.Status == 429 && e.RetryAfter == 1000*time.Second) {
			t.Errorf("Retry-After %s: asked %d times, want %d; %v", after, n, want, err)
		}
	}
}

// TestInsufficientScope: T7: no endless loop, whether the registry says why or not.
func TestInsufficientScope(t *testing.T) {
	for _, reason := range []string{`,error="insufficient_scope"`, ""} {
		f := newFake(t)
		f.token = func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"token":"weak"}`) }
		f.challenge = func(r *http.Request) []string {
			c := `Bearer realm="` + f.auth.URL + `/token",scope="repository:a:push"`
			if r.Header.Get("Authorization") != "" {
				c += reason
			}
			return []string{c}
		}
		rt := f.transport(Secret{})
		f.wantStatus(rt, "/v2/a/blobs/uploads/", 401, Repository("a", "pull"))
		f.wantLog("GET /v2/a/blobs/uploads/", "GET /v2/a/blobs/uploads/ Bearer weak")
		f.wantTokens("GET scope=repository%3Aa%3Apull%2Cpush")
		f.wantStatus(rt, "/v2/a/blobs/uploads/", 401, Repository("a", "pull"))
		if reason != "" {
			f.wantLog("GET /v2/a/blobs/uploads/ Bearer weak") // nothing better is to be had
			f.wantTokens()
		} else {
			f.wantLog("GET /v2/a/blobs/uploads/ Bearer weak", "GET /v2/a/blobs/uploads/ Bearer weak")
			f.wantTokens("GET scope=repository%3Aa%3Apull%2Cpush")
		}
	}
}

// TestExpiry: T6: a token is fetched again shortly before its end.
func TestExpiry(t *testing.T) {
	f := newFake(t)
	rt := f.transport(Secret{})
	clock := time.Now()
	rt.now = func() time.Time { return clock }
	for i, c := range []struct {
		after time.Duration
		want  string
	}{{0, "t1"}, {53 * time.Second, "t1"}, {2 * time.Second, "t2"}} {
		clock = clock.Add(c.after)
		f.wantStatus(rt, "/v2/", 200)
		f.mu.Lock()
		if last := f.log[len(f.log)-1]; last != "GET /v2/ Bearer "+c.want {
			t.Errorf("%d: %s, want token %s", i, last, c.want)
		}
		f.mu.Unlock()
	}
}

// TestOneFetch: requests side by side share one token.
func TestOneFetch(t *testing.T) {
	f := newFake(t)
	rt := f.transport(Secret{})
	f.wantStatus(rt, "/v2/", 200)
	f.mu.Lock()
	f.tokenLog = nil
	f.mu.Unlock()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { f.wantStatus(rt, "/v2/a/", 200, Repository("a", "pull")) })
	}
	wg.Wait()
	f.wantTokens("GET scope=repository%3Aa%3Apull&" + service)
}

// TestHostileTokenServer: replies without end, huge ones, and challenges that cannot be read.
func TestHostileTokenServer(t *testing.T) {
	f := newFake(t)
	f.token = func(w http.ResponseWriter, r *http.Request) {
		for range 2 * maxTokenReply / 1000 {
			if _, err := io.WriteString(w, strings.Repeat("x", 1000)); err != nil {
				return
			}
		}
	}
	if _, err := f.get(f.transport(Secret{}), "/v2/"); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("error %v", err)
	}
	for challenge, want := range map[string]string{
		`Bearer realm="` + f.auth.URL + `",scope="x"`: "parse scope",
		`Bearer realm="`: "does not end",
		`Bearer realm="` + f.auth.URL + `",scope="` + strings.Repeat("repository:a:pull ", maxScopes+1) + `"`: "at most 64",
	} {
		f.challenge = func(*http.Request) []string { return []string{challenge} }
		if _, err := f.get(f.transport(Secret{}), "/v2/"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: error %v, want %q", challenge, err, want)
		}
	}
	f.challenge = func(*http.Request) []string { return []string{"Negotiate"} }
	f.wantStatus(f.transport(Secret{Username: "u", Password: "p"}), "/v2/", 401)
}

// TestBasic: T1.
func TestBasic(t *testing.T) {
	f := newFake(t)
	f.valid["Basic YWxpY2U6c2VjcmV0"] = true
	f.challenge = func(*http.Request) []string { return []string{`Basic realm="r"`} }
	rt := f.transport(Secret{Username: "alice", Password: "secret"})
	f.wantStatus(rt, "/v2/", 200)
	f.wantStatus(rt, "/v2/a", 200)
	f.wantLog("GET /v2/", "GET /v2/ Basic YWxpY2U6c2VjcmV0", "GET /v2/a Basic YWxpY2U6c2VjcmV0")
	rt = f.transport(Secret{Username: "alice", Password: "wrong"})
	f.wantStatus(rt, "/v2/", 401)
	f.wantStatus(rt, "/v2/", 401)
	f.wantLog("GET /v2/", "GET /v2/ Basic YWxpY2U6d3Jvbmc=", "GET /v2/ Basic YWxpY2U6d3Jvbmc=")
	f.wantStatus(f.transport(Secret{}), "/v2/", 401)
	f.wantStatus(f.transport(Secret{IdentityToken: "i", Username: "alice"}), "/v2/", 401) // a user's name is no password
	f.wantLog("GET /v2/", "GET /v2/")
}

// TestOtherOriginsCVE_2020_15157: CVE-2026-50151, K6: requests to any other origin pass untouched, and a 401 there is not
// answered.
func TestOtherOriginsCVE_2020_15157(t *testing.T) {
	f, other := newFake(t), newFake(t)
	f.valid["Basic YWxpY2U6c2VjcmV0"] = true
	f.challenge = func(*http.Request) []string { return []string{`Basic realm="r"`} }
	rt := f.transport(Secret{Username: "alice", Password: "secret"})
	f.wantStatus(rt, "/v2/", 200)
	other.challenge = f.challenge
	for _, u := range []string{other.registry.URL, strings.Replace(f.registry.URL, "127.0.0.1", "localhost", 1)} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u+"/foreign", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := rt.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 401 || r.Header.Get("Authorization") != "" {
			t.Errorf("%s: %s", u, resp.Status)
		}
	}
	other.wantLog("GET /foreign")
	f.wantLog("GET /v2/", "GET /v2/ Basic YWxpY2U6c2VjcmV0", "GET /foreign")
	if err := authorize(&http.Request{URL: mustParse(t, other.registry.URL)}, originOf(t, f.registry.URL), "Basic", "x"); err == nil {
		t.Error("authorize writes a header for another origin")
	}
}

func TestVerify(t *testing.T) {
	f := newFake(t)
	f.password = "secret"
	base := mustParse(t, f.registry.URL)
	for _, c := range []struct {
		s       Secret
		refused bool
	}{{Secret{Username: "alice", Password: "secret"}, false}, {Secret{Username: "alice", Password: "wrong"}, true}, {Secret{}, true}} {
		asked, err := Verify(t.Context(), f.transport(c.s), base)
		if !asked || c.refused != errors.Is(err, ErrRefused) || !c.refused && err != nil {
			t.Errorf("%d: asked %v, %v, want refused %v", len(c.s.Password), asked, err, c.refused)
		}
	}
	f.valid[""] = true // answers everybody
	if asked, err := Verify(t.Context(), f.transport(Secret{Username: "alice", Password: "wrong"}), base); asked || err != nil {
		t.Errorf("an open registry: asked %v, %v", asked, err)
	}
}

func TestObserver(t *testing.T) {
	f := newFake(t)
	f.password = "secret"
	var outer, inner []string
	note := func(to *[]string) func(Event) {
		return func(e Event) { *to = append(*to, fmt.Sprint(e.Step, " ", e.Credential, " ", e.Detail)) }
	}
	ctx := WithObserver(WithObserver(t.Context(), note(&outer)), note(&inner))
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, f.registry.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := f.transport(Secret{Username: "alice", Password: "secret"}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	want := "challenge  bearer|credential test |token test "
	if strings.Join(outer, "|") != want || strings.Join(inner, "|") != want {
		t.Errorf("%q, %q, want %q", outer, inner, want)
	}
}

// careless is a keychain that has one credential for everybody.
type careless struct{ c Credential }

func (k careless) Find(context.Context, Origin, string) (Credential, error) { return k.c, nil }

// TestBoundCredential: a credential of another origin is not sent, whoever hands it out.
func TestBoundCredential(t *testing.T) {
	f := newFake(t)
	rt := f.transport(Secret{})
	rt.c.Keychain = careless{credential(t, originOf(t, "https://r.io"), Secret{Username: "alice", Password: "secret"})}
	for _, challenge := range []string{`Basic realm="r"`, `Bearer realm="` + f.auth.URL + `"`} {
		f.challenge = func(*http.Request) []string { return []string{challenge} }
		if _, err := f.get(rt, "/v2/"); err == nil || !strings.Contains(err.Error(), "is not sent there") {
			t.Errorf("%s: %v", challenge, err)
		}
		f.wantLog("GET /v2/")
		f.wantTokens()
	}
}
