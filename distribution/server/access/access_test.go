package access

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// registry is the double of what stands behind the guard: it notes what comes through.
type registry struct {
	repos []string
	got   *http.Request
}

func (x *registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x.got = r
	w.WriteHeader(http.StatusTeapot)
}

func (x *registry) repositories(_ context.Context, last string, n int) ([]string, bool, error) {
	i, found := slices.BinarySearch(x.repos, last)
	if found {
		i++
	}
	end := min(i+n, i+2, len(x.repos)) // a storage may give less than it was asked for
	return x.repos[i:end], end < len(x.repos), nil
}

// world is a guard with users, groups and permissions before a registry.
type world struct {
	*Guard
	registry *registry
	handler  http.Handler
	dir      string
}

const secret = "s3cret-of-"

func htpasswd(t *testing.T, users ...string) []byte {
	t.Helper()
	var out []byte
	for _, u := range users {
		h, err := bcrypt.GenerateFromPassword([]byte(secret+u), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		out = fmt.Appendf(out, "%s:%s\n", u, h)
	}
	return out
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// testPolicy has a user for every action, and one for each pair that has been confused elsewhere.
func testPolicy() *Policy {
	return &Policy{Groups: map[string][]string{"devs": {"dave"}}, Rules: []Rule{
		{Repositories: []string{"open/**"}, Anonymous: true, Actions: []Action{Pull}},
		{Repositories: []string{"team/**"}, Users: []string{"reader", "pusher", "creator"}, Actions: []Action{Pull}},
		{Repositories: []string{"team/**"}, Users: []string{"pusher", "blind"}, Actions: []Action{Push}},
		{Repositories: []string{"team/**"}, Users: []string{"creator"}, Actions: []Action{Create}},
		{Repositories: []string{"team/**"}, Users: []string{"deleter"}, Actions: []Action{Delete}},
		{Repositories: []string{"team/**"}, Groups: []string{"devs", "ops"}, Actions: []Action{Pull, Push, Delete}},
	}}
}

func newWorld(t *testing.T, change func(*Config)) *world {
	t.Helper()
	x := &world{registry: &registry{repos: []string{"open/x", "open/y", "secret/a", "secret/b", "team/a", "team/b", "zoo"}}, dir: t.TempDir()}
	file := filepath.Join(x.dir, "htpasswd")
	write(t, file, htpasswd(t, "reader", "pusher", "blind", "creator", "deleter", "dave", "olga", "nobody"))
	write(t, filepath.Join(x.dir, "groups"), []byte("ops: olga\n"))
	users, err := OpenUsers(file)
	if err != nil {
		t.Fatal(err)
	}
	groups, err := OpenGroups(filepath.Join(x.dir, "groups"))
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := NewIssuer("registry.test", "")
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Users: users, Groups: groups, Issuer: issuer, Service: "registry.test", Repositories: x.registry.repositories}
	if change != nil {
		change(&c)
	}
	if x.Guard, err = New(c, testPolicy()); err != nil {
		t.Fatal(err)
	}
	x.handler = x.Wrap(x.registry)
	return x
}

// do sends a request; auth is "" for nothing, "user" for Basic, or a whole Authorization header.
func (x *world) do(method, target, auth string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://registry.test"+target, http.NoBody)
	switch {
	case strings.Contains(auth, " "):
		r.Header.Set("Authorization", auth)
	case auth != "":
		r.SetBasicAuth(auth, secret+auth)
	}
	w := httptest.NewRecorder()
	x.registry.got = nil
	x.handler.ServeHTTP(w, r)
	return w
}

// token logs in at the token endpoint and returns an Authorization header.
func (x *world) token(t *testing.T, user string, scopes ...string) string {
	t.Helper()
	target := TokenPath + "?service=registry.test"
	for _, s := range scopes {
		target += "&scope=" + s
	}
	w := x.do("GET", target, user)
	var reply tokenReply
	if err := json.Unmarshal(w.Body.Bytes(), &reply); err != nil || w.Code != 200 || reply.Token == "" || reply.Token != reply.AccessToken {
		t.Fatalf("token for %q: %d %s", user, w.Code, w.Body)
	}
	return "Bearer " + reply.Token
}

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// endpoints are the paths of team/a, and which action each method needs; a method that is not listed is never let through.
var endpoints = []struct {
	path string
	need map[string]Action
}{
	{"/v2/team/a/blobs/" + someDigest, map[string]Action{"GET": Pull, "HEAD": Pull, "DELETE": Delete}},
	{"/v2/team/a/manifests/tag", map[string]Action{"GET": Pull, "HEAD": Pull, "PUT": Create, "DELETE": Delete}},
	{"/v2/team/a/manifests/" + someDigest + "?tag=a&tag=b", map[string]Action{"GET": Pull, "HEAD": Pull, "PUT": Create, "DELETE": Delete}},
	{"/v2/team/a/blobs/uploads/", map[string]Action{"POST": Create}},
	{"/v2/team/a/blobs/uploads", map[string]Action{"POST": Create}},
	{"/v2/team/a/blobs/uploads/session", map[string]Action{"GET": Create, "HEAD": Create, "PATCH": Create, "PUT": Create, "DELETE": Create}},
	{"/v2/team/a/tags/list", map[string]Action{"GET": Pull, "HEAD": Pull}},
	{"/v2/team/a/referrers/" + someDigest, map[string]Action{"GET": Pull, "HEAD": Pull}},
}

var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "Delete", "PROPFIND", "MOVE", "X"}

// TestMatrix is every method at every endpoint with every scope, by password and by token (CVE-2026-61833).
func TestMatrix(t *testing.T) {
	x := newWorld(t, nil)
	has := map[string][]Action{"": nil, "nobody": nil, "reader": {Pull}, "pusher": {Pull, Push}, "blind": {Push}, "creator": {Pull, Create},
		"deleter": {Delete}, "dave": {Pull, Push, Delete}, "olga": {Pull, Push, Delete}}
	for user, actions := range has {
		for _, how := range []string{"password", "token"} {
			auth := user
			if how == "token" {
				auth = x.token(t, user, "repository:team/a:*", "repository:team/a:pull,push,delete,create")
			}
			for _, e := range endpoints {
				for _, method := range methods {
					action, known := e.need[method]
					want := http.StatusForbidden
					switch {
					case !known:
						want = http.StatusMethodNotAllowed
					case includes(actions, action):
						want = http.StatusTeapot
					case user == "":
						want = http.StatusUnauthorized
					}
					w := x.do(method, e.path, auth)
					if w.Code != want || (x.registry.got != nil) != (want == http.StatusTeapot) {
						t.Errorf("%s by %s: %s %s is answered %d, want %d: %s", user, how, method, e.path, w.Code, want, w.Body)
					}
					if (want == http.StatusUnauthorized) != (w.Header().Get("WWW-Authenticate") != "") {
						t.Errorf("%s by %s: %s %s: %d with challenge %q", user, how, method, e.path, w.Code, w.Header().Get("WWW-Authenticate"))
					}
				}
			}
		}
	}
}

// TestTokenScopes: a token allows what it says and not what its user may do otherwise (CVE-2026-61833).
func TestTokenScopes(t *testing.T) {
	x := newWorld(t, nil)
	for _, c := range []struct {
		scope string
		has   []Action
	}{{"repository:team/a:pull", []Action{Pull}}, {"repository:team/a:push", []Action{Push}}, {"repository:team/a:pull,push", []Action{Pull, Push}},
		{"repository:team/a:delete", []Action{Delete}}, {"repository:team/b:*", nil}, {"repository:team:*", nil}, {"repository:team/**:*", nil},
		{"registry:catalog:*", nil}, {"repository:team/a:", nil}, {"nonsense", nil}} {
		auth := x.token(t, "dave", c.scope)
		for _, e := range endpoints {
			for method, action := range e.need {
				want := http.StatusUnauthorized
				if includes(c.has, action) {
					want = http.StatusTeapot
				}
				if w := x.do(method, e.path, auth); w.Code != want {
					t.Errorf("%s: %s %s is answered %d, want %d", c.scope, method, e.path, w.Code, want)
				} else if want == 401 && !strings.Contains(w.Header().Get("WWW-Authenticate"), `error="insufficient_scope"`) {
					t.Errorf("%s: %s %s: challenge %s", c.scope, method, e.path, w.Header().Get("WWW-Authenticate"))
				}
			}
		}
	}
}

func TestRevocationCVE_2025_23208(t *testing.T) {
	x := newWorld(t, nil)
	get := func(auth string) int { return x.do("GET", "/v2/team/a/tags/list", auth).Code }
	dave, olga, reader := x.token(t, "dave", "repository:team/a:pull"), x.token(t, "olga", "repository:team/a:pull"), x.token(t, "reader", "repository:team/a:pull")
	for _, auth := range []string{dave, olga, reader, "dave", "olga", "reader"} {
		if got := get(auth); got != 418 {
			t.Fatalf("before: %d", got)
		}
	}
	p := testPolicy()
	p.Groups = nil
	if err := x.SetPolicy(p); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(x.dir, "groups"), []byte("ops: karl\n"))
	for _, auth := range []string{dave, olga, "dave", "olga"} {
		if got := get(auth); got != 403 {
			t.Errorf("after the groups were taken away: %d", got)
		}
	}
	if got := get("reader"); got != 418 {
		t.Errorf("somebody else: %d", got)
	}
	write(t, filepath.Join(x.dir, "htpasswd"), htpasswd(t, "dave"))
	for _, auth := range []string{reader, "reader"} {
		if got := get(auth); got != 401 {
			t.Errorf("a removed user: %d", got)
		}
	}
}

func TestBaseAndPages(t *testing.T) {
	x := newWorld(t, nil)
	closed := newWorld(t, nil)
	if err := closed.SetPolicy(&Policy{}); err != nil {
		t.Fatal(err)
	}
	anybody := x.token(t, "")
	for _, c := range []struct {
		x                    *world
		method, target, auth string
		want                 int
		challenge            string
	}{
		{x, "GET", "/v2/", "", 401, `Bearer realm="http://registry.test/token",service="registry.test"`},
		{x, "GET", "/v2", "", 401, "Bearer"},
		{x, "GET", "/v2/", anybody, 418, ""},
		{x, "HEAD", "/v2/", "nobody", 418, ""},
		{x, "POST", "/v2/", "nobody", 405, ""},
		{x, "GET", "/v2/", "Basic bm9ib2R5Ondyb25n", 401, "Bearer"},
		{x, "GET", "/v2/open/x/tags/list", "Basic bm9ib2R5Ondyb25n", 401, "Bearer"},
		{x, "GET", "/v2/", "Basic Og==", 401, "Bearer"},
		{x, "GET", "/v2/", "Bearer x", 401, "Bearer"},
		{x, "GET", "/v2/", "Digest x", 401, "Bearer"},
		{x, "GET", "/v2/open/x/tags/list", "", 418, ""},
		{x, "GET", "/v2/team/a/tags/list", "", 401, `scope="repository:team/a:pull"`},
		{x, "GET", "/v2/team/a/tags/list", anybody, 401, `error="insufficient_scope"`},
		{x, "POST", "/v2/open/x/blobs/uploads/?mount=a&from=open/y", "", 401, `scope="repository:open/x:pull,push repository:open/y:pull"`},
		{x, "POST", `/v2/open/x/blobs/uploads/?mount=a&from="`, "", 401, `scope="repository:open/x:pull,push"`},
		{x, "DELETE", "/v2/open/x/manifests/a", "", 401, `scope="repository:open/x:delete"`},
		{x, "GET", "/v2/nonsense", "", 418, ""},
		{closed, "GET", "/v2/nonsense", "", 401, "Bearer"},
		{x, "DELETE", "/v2/nonsense", "dave", 405, ""},
		{x, "PUT", "/v2/UPPER/manifests/a", "dave", 405, ""},
		{x, "GET", "/", "", 418, ""},
		{x, "POST", "/", "", 405, ""},
		{x, "GET", "/login", "", 401, "Basic"},
		{x, "GET", "/login", "nobody", 303, ""},
		{closed, "GET", "/", "", 401, "Basic"},
		{closed, "GET", "/", "nobody", 418, ""},
		{closed, "GET", TokenPath, "", 401, "Basic"},
		{closed, "GET", "/v2/zoo/tags/list", "nobody", 418, ""},
		{closed, "DELETE", "/v2/zoo/manifests/a", "nobody", 418, ""},
	} {
		w := c.x.do(c.method, c.target, c.auth)
		if got := w.Header().Get("WWW-Authenticate"); w.Code != c.want || !strings.Contains(got, c.challenge) || (got == "") != (c.challenge == "") {
			t.Errorf("%s %s by %q: %d %s, want %d %s", c.method, c.target, c.auth, w.Code, got, c.want, c.challenge)
		}
	}
}

func TestCatalog(t *testing.T) {
	x := newWorld(t, nil)
	list := func(auth, query string) (string, string) {
		w := x.do("GET", "/v2/_catalog"+query, auth)
		var page struct{ Repositories []string }
		if err := json.Unmarshal(w.Body.Bytes(), &page); w.Code == 200 && (err != nil || page.Repositories == nil) {
			t.Fatalf("%s: %v", w.Body, err)
		}
		return fmt.Sprintf("%d %s", w.Code, strings.Join(page.Repositories, " ")), w.Header().Get("Link")
	}
	for _, c := range []struct{ auth, query, want, link string }{
		{"", "", "200 open/x open/y", ""},
		{"reader", "", "200 open/x open/y team/a team/b", ""},
		{"reader", "?n=2", "200 open/x open/y", `</v2/_catalog?last=open%2Fy&n=2>; rel="next"`},
		{"reader", "?n=2&last=open/y", "200 team/a team/b", ""},
		{"", "?n=2", "200 open/x open/y", ""}, // that there is more is nobody's business
		{"reader", "?n=0", "200 ", ""},
		{"reader", "?n=-1", "400 ", ""},
		{"reader", "?n=x", "400 ", ""},
		{"reader", "?n=2147483647", "200 open/x open/y team/a team/b", ""}, // CVE-2023-2253
		{"reader", "?n=99999999999999999999", "400 ", ""},
		{"nobody", "", "200 open/x open/y", ""},
		{x.token(t, "reader", "registry:catalog:*"), "", "200 open/x open/y team/a team/b", ""},
		{x.token(t, "reader", "repository:team/a:pull"), "", "401 ", ""},
	} {
		if got, link := list(c.auth, c.query); got != c.want || link != c.link {
			t.Errorf("%.20s %s: %q %q, want %q %q", c.auth, c.query, got, link, c.want, c.link)
		}
	}
	r := httptest.NewRequest("GET", "/", nil)
	if x.CanPull(r, "open/x") {
		t.Error("a request that has not passed the guard may read")
	}
	x.do("GET", "/", "reader")
	if !x.CanPull(x.registry.got, "team/a") || x.CanPull(x.registry.got, "secret/a") || User(x.registry.got) != "reader" {
		t.Error("pages are not told right what may be read")
	}
}

func TestTokenEndpoint(t *testing.T) {
	x := newWorld(t, nil)
	post := func(form string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "http://registry.test"+TokenPath, strings.NewReader(form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		x.handler.ServeHTTP(w, r)
		return w
	}
	for form, want := range map[string]int{
		"grant_type=password&username=reader&password=" + secret + "reader&service=registry.test&scope=repository:team/a:pull": 200,
		"grant_type=password&username=reader&password=wrong":                                                                   401,
		"grant_type=password&username=&password=":                                                                              401,
		"grant_type=refresh_token&refresh_token=x":                                                                             400,
		"grant_type=password&username=reader&password=" + secret + "reader&service=other":                                      400,
		"x=" + strings.Repeat("a", maxTokenForm):                                                                               400,
	} {
		if w := post(form); w.Code != want || w.Header().Get("Cache-Control") != "no-store" || strings.Contains(w.Body.String(), secret) {
			t.Errorf("%.60s: %d %.80s, want %d", form, w.Code, w.Body, want)
		}
	}
	for target, want := range map[string]int{
		"?scope=" + strings.Repeat("a:b:c%20", maxScopes+1): 400, "?service=other": 400, "?account=reader&client_id=docker&offline_token=true": 200} {
		if w := x.do("GET", TokenPath+target, "reader"); w.Code != want {
			t.Errorf("GET %.40s: %d %s, want %d", target, w.Code, w.Body, want)
		}
	}
	if w := x.do("DELETE", TokenPath, "reader"); w.Code != 405 {
		t.Errorf("DELETE: %d", w.Code)
	}
	if w := x.do("GET", TokenPath, "Bearer x"); w.Code != 401 {
		t.Errorf("bearer at the token endpoint: %d", w.Code)
	}
	// What is granted is what there is, and no more.
	for scope, want := range map[string]string{"repository:team/a:pull,push": "pull create", "repository:team/a:*": "pull create", "repository:secret/a:pull": "",
		"registry:catalog:*": "*", "repository:h:5000/team/a:pull": "", "registry:catalog:delete": ""} {
		c, err := x.Issuer.verifier.verify(strings.TrimPrefix(x.token(t, "creator", scope), "Bearer "))
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if len(c.Access) > 0 {
			got = strings.Join(c.Access[0].Actions, " ")
		}
		if got != want {
			t.Errorf("%s: granted %q, want %q", scope, got, want)
		}
	}
	x.Issuer.now = func() time.Time { return time.Now().Add(-tokenLife - leeway - time.Second) }
	if w := x.do("GET", "/v2/", x.token(t, "reader")); w.Code != 401 {
		t.Errorf("an old token: %d", w.Code)
	}
}

func TestBaseURL(t *testing.T) {
	x := newWorld(t, nil)
	for host, want := range map[string]string{"r.example:5000": "http://r.example:5000", "[::1]:5000": "http://[::1]:5000", `a",realm="http://evil`: "http://invalid", "a/b": "http://invalid"} {
		r := httptest.NewRequest("GET", "/v2/", nil)
		r.Host = host
		if got := x.base(r); got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
	x.URL = "https://registry.example/"
	if got := x.base(httptest.NewRequest("GET", "/v2/", nil)); got != "https://registry.example" {
		t.Error(got)
	}
}
