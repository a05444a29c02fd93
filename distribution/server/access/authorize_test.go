package access

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/distribution/server"
	"github.com/tare-oci/tare/distribution/server/storage"
)

// kept is a storage with the tag team/a:old and one blob in every repository; what the tests do not need is not there.
type kept struct {
	storage.Storage
	put, linked []string
}

func (k *kept) StartUpload(context.Context, string, digest.Algorithm) (string, error) {
	return "id", nil
}

func (k *kept) LinkBlob(_ context.Context, from, to string, d digest.Digest) (storage.BlobInfo, error) {
	k.linked = append(k.linked, from+" "+to)
	return storage.BlobInfo{Digest: d}, nil
}

func (k *kept) PutManifest(_ context.Context, repo string, _ storage.Manifest, o storage.PutOptions) error {
	for _, tag := range o.Tags {
		now := digest.Digest("")
		if repo+":"+tag == "team/a:old" {
			now = digest.FromString("something else")
		}
		if o.Expect != nil && !o.Expect(tag, now) {
			return storage.ErrConditionFailed
		}
	}
	k.put = append(k.put, o.Tags...)
	return nil
}

func withServer(t *testing.T) (*world, *kept) {
	x, k := newWorld(t, nil), &kept{}
	x.handler = x.Wrap(server.New(server.Options{Storage: k, Authorizer: x.Guard}))
	return x, k
}

func TestCreateOnlyCVE_2026_31801(t *testing.T) {
	x, k := withServer(t)
	const manifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
	byDigest := "/v2/team/a/manifests/" + digest.FromString(manifest).String()
	for target, tags := range map[string]string{"/v2/team/a/manifests/new": "new", "/v2/team/a/manifests/old": "old", byDigest: "",
		byDigest + "?tag=n1&tag=n2": "n1 n2", byDigest + "?tag=n1&tag=old": "n1 old"} {
		for _, user := range []string{"creator", "pusher", "token"} {
			k.put = nil
			r := httptest.NewRequest("PUT", target, strings.NewReader(manifest))
			r.Header.Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			if user == "token" {
				r.Header.Set("Authorization", x.token(t, "creator", "repository:team/a:pull,push,create,delete"))
			} else {
				r.SetBasicAuth(user, secret+user)
			}
			w := httptest.NewRecorder()
			x.handler.ServeHTTP(w, r)
			want, stored := 201, tags
			if user != "pusher" && strings.Contains(tags, "old") {
				want, stored = 403, ""
			}
			if got := strings.Join(k.put, " "); w.Code != want || got != stored {
				t.Errorf("%s: PUT %s: %d %s, tagged %q", user, target, w.Code, w.Body, got)
			}
		}
	}
}

func TestMountCVE_2024_39897(t *testing.T) {
	x, k := withServer(t)
	tokens := []string{"pusher", x.token(t, "pusher", "repository:team/a:pull,push", "repository:team/b:pull", "repository:open/x:pull", "repository:secret/a:pull")}
	for query, want := range map[string]string{
		"&from=open/x":                "open/x team/a",
		"&from=team/b":                "team/b team/a",
		"&from=secret/a":              "",
		"":                            "",
		"&from=":                      "",
		"&from=secret/a&from=open/x":  "",
		"&from=team/../secret/a":      "",
		"&from=team/b/../../secret/a": "",
	} {
		for _, auth := range tokens {
			k.linked = nil
			w := x.do("POST", "/v2/team/a/blobs/uploads/?mount="+someDigest+query, auth)
			if got := strings.Join(k.linked, " "); got != want || (w.Code == 201) != (want != "") || w.Code != 201 && w.Code != 202 && !strings.Contains(query, "..") {
				t.Errorf("%s: %d, linked %q, want %q", query, w.Code, got, want)
			}
		}
	}
	// A token for the target only does not reach the source.
	if w := x.do("POST", "/v2/team/a/blobs/uploads/?mount="+someDigest+"&from=team/b", x.token(t, "pusher", "repository:team/a:pull,push")); w.Code != 202 {
		t.Errorf("mount without a token for the source: %d", w.Code)
	}
}

func TestAuthorize(t *testing.T) {
	x := newWorld(t, nil)
	r := httptest.NewRequest("GET", "/", nil)
	var denied *server.AccessError
	if err := x.Authorize(r, server.Access{Action: server.Pull, Repository: "open/x"}); err == nil || errors.As(err, &denied) {
		t.Errorf("a request that has not passed the guard: %v", err)
	}
	x.do("GET", "/", "creator")
	for a, good := range map[server.Access]bool{{Action: server.Pull, Repository: "team/a"}: true, {Action: server.Push, Repository: "team/a"}: true, {Action: server.Overwrite, Repository: "team/a"}: false,
		{Action: server.Delete, Repository: "team/a"}: false, {Action: server.Pull, Repository: "secret/a"}: false, {Action: 99, Repository: "team/a"}: false, {Action: server.Enter}: true} {
		if err := x.Authorize(x.registry.got, a); (err == nil) != good || err != nil && !errors.As(err, &denied) {
			t.Errorf("%v: %v", a, err)
		}
	}
}
