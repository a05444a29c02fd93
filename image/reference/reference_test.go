package reference

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

func check(t *testing.T, in string, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("%.80q: error %v, want %q", in, err, want)
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Reference
		err  string
	}{
		{"oci:/a/b", Reference{OCI, "/a/b", "", -1}, ""},
		{"oci:dir:docker.io/library/busybox:1.36", Reference{OCI, "dir", "docker.io/library/busybox:1.36", -1}, ""},
		{"oci:dir:any thing", Reference{OCI, "dir", "any thing", -1}, ""},
		{"oci-archive:x.tar:v1", Reference{OCIArchive, "x.tar", "v1", -1}, ""},
		{"docker-archive:x.tar:busybox:latest", Reference{DockerArchive, "x.tar", "busybox:latest", -1}, ""},
		{"docker-archive:x.tar:@2", Reference{DockerArchive, "x.tar", "", 2}, ""},
		{"docker-archive:x.tar:@-1", Reference{}, "position from 0"},
		{"docker-archive:x.tar:@4294967296", Reference{}, "position from 0"},
		{"docker-archive:x.tar:Busybox", Reference{}, "lower-case"},
		{"docker-archive:x.tar:a@sha256:" + strings.Repeat("a", 64), Reference{}, "not with digests"},
		{"dir:/a:b", Reference{Dir, "/a:b", "", -1}, ""},
		{"dir:", Reference{}, "path is missing"},
		{"docker://localhost:5000/a/b:x", Reference{Docker, "", "localhost:5000/a/b:x", -1}, ""},
		{"docker://a.b/c@sha256:" + strings.Repeat("a", 64), Reference{Docker, "", "a.b/c@sha256:" + strings.Repeat("a", 64), -1}, ""},
		{"docker://Alpine", Reference{}, "lower-case"},
		{"docker://", Reference{}, "a repository has"},
		{"store:alpine", Reference{Store, "", "alpine", -1}, ""},
		{"store:sha256:0123456789ab", Reference{Store, "", "sha256:0123456789ab", -1}, ""},
		{"store:A", Reference{}, "lower-case"},
		{"oci:", Reference{}, "path is missing"},
		{"oci::x", Reference{}, "path is missing"},
		{"oci:x:", Reference{}, "name is missing"},
		{"oci:x\n", Reference{}, "control characters"},
		{"", Reference{}, "transport is missing"},
		{"./dir", Reference{}, "transport is missing; known are docker://NAME, store:NAME, oci:DIR[:REF], oci-archive:"},
		{"/dir:x", Reference{}, "transport is missing"},
		{"docker:busybox", Reference{}, `unknown transport "docker"`},
		{"docker-daemon:busybox:latest", Reference{}, `unknown transport "docker-daemon"; known are docker://NAME`},
		{"alpine:3.20", Reference{}, "say docker://alpine:3.20 for the registry's or store:alpine:3.20 for"},
		{"localhost:5000/a/b:x", Reference{}, "transport is missing: say"},
	} {
		r, err := Parse(c.in)
		check(t, c.in, err, c.err)
		if r != c.want {
			t.Errorf("%s: %+v, want %+v", c.in, r, c.want)
		}
		if err == nil && r.String() != c.in {
			t.Errorf("%s: String %s", c.in, r)
		}
	}
	if r, err := Parse("docker://alpine"); err != nil || r.Name != "docker.io/library/alpine:latest" {
		t.Errorf("docker://alpine: %+v, %v", r, err)
	}
}

func TestParseImage(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Reference
		err  string
	}{
		{"alpine", Reference{Store, "", "alpine", -1}, ""},
		{"localhost:5000/a/b:x", Reference{Store, "", "localhost:5000/a/b:x", -1}, ""},
		{"sha256:0123456789ab", Reference{Store, "", "sha256:0123456789ab", -1}, ""},
		{"docker-daemon:x", Reference{}, "unknown transport"},
		{"dir:x", Reference{Dir, "x", "", -1}, ""},
		{"Alpine", Reference{}, "transport is missing; known"},
		{"./x", Reference{}, "transport is missing; known"},
		{"store:", Reference{}, "a repository has"},
	} {
		r, err := ParseImage(c.in)
		check(t, c.in, err, c.err)
		if r != c.want {
			t.Errorf("%s: %+v, want %+v", c.in, r, c.want)
		}
	}
}

func TestParseName(t *testing.T) {
	d := "sha256:" + strings.Repeat("0", 64)
	for _, c := range []struct{ in, want, err string }{
		{"alpine", "docker.io/library/alpine:latest", ""},
		{"docker.io/alpine:3", "docker.io/library/alpine:3", ""},
		{"index.docker.io/a/b", "docker.io/a/b:latest", ""},
		{"a/b__c/d.e--f", "docker.io/a/b__c/d.e--f:latest", ""},
		{"localhost/x:y", "localhost/x:y", ""},
		{"localhost:5000/x", "localhost:5000/x:latest", ""},
		{"[::1]:5000/x", "[::1]:5000/x:latest", ""},
		{"REG/x", "REG/x:latest", ""},
		{"x@" + d, "docker.io/library/x@" + d, ""},
		{"x:t@" + d, "docker.io/library/x:t@" + d, ""},
		{"x@sha256:ab", "", "digest"},
		{"", "", "a repository has"},
		{"a//b", "", "a repository has"},
		{"a_", "", "a repository has"},
		{"a___b", "", "a repository has"},
		{"a..b", "", "a repository has"},
		{"../x", "", "not a host"},
		{"a/../x", "", "a repository has"},
		{"-.x/y", "", "not a host"},
		{"x.y:123456/y", "", "not a host"},
		{"a:", "", "tag"},
		{"a:.x", "", "tag"},
		{"a:" + strings.Repeat("x", 129), "", "tag"},
		{strings.Repeat("x", 256), "", "longer than 255"},
	} {
		n, err := ParseName(c.in)
		check(t, c.in, err, c.err)
		if err == nil && n.String() != c.want {
			t.Errorf("%s: %s, want %s", c.in, n, c.want)
		}
	}
}

func TestCheckDigest(t *testing.T) {
	hex := strings.Repeat("0123456789abcdef", 8)
	for _, c := range []struct{ in, err, verifiable string }{
		{"sha256:" + hex[:64], "", ""},
		{"sha512:" + hex, "", ""},
		{"blake3:" + hex[:64], "", "neither sha256 nor sha512"},
		{"multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8", "", "neither"},
		{"sha384:" + hex[:96], "", "neither"},
		{"a+b.c_d-e:=_-", "", "neither"},
		{"", "missing", "missing"},
		{"sha256:abc", "64 lower-case", "64"},
		{"sha256:" + strings.ToUpper(hex[:64]), "64 lower-case", "64"},
		{"SHA256:" + hex[:64], "malformed", "malformed"},
		{"sha512:" + hex[:64], "128 lower-case", "128"},
		{"sha256:../../x", "malformed", "malformed"},
		{"sha256/..:" + hex[:64], "malformed", "malformed"},
		{"a..b:x", "malformed", "malformed"},
		{"-a:x", "malformed", "malformed"},
		{"a-:x", "malformed", "malformed"},
		{":x", "malformed", "malformed"},
		{"sha256:", "malformed", "malformed"},
		{"sha256", "malformed", "malformed"},
		{"x:" + strings.Repeat("a", 511), "longer than 512", "longer"},
	} {
		check(t, c.in, CheckDigest(digest.Digest(c.in)), c.err)
		check(t, c.in, CheckVerifiable(digest.Digest(c.in)), c.verifiable)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"oci:dir:ref", "oci-archive:f", "docker-archive:f:@1", "docker-archive:f:a/b:c", "alpine", "docker://x", "store:y", "dir:z:a", "sha256:0123456789ab", "[::1]:5/x@sha256:0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if r, err := Parse(s); err == nil {
			again, err := Parse(r.String())
			if err != nil || again != r {
				t.Errorf("%q: %+v, again %+v, %v", s, r, again, err)
			}
		}
		if r, err := ParseImage(s); err == nil {
			again, err := Parse(r.String())
			if err != nil || again != r {
				t.Errorf("image %q: %+v, again %+v, %v", s, r, again, err)
			}
		}
		n, err := ParseName(s)
		if err != nil {
			return
		}
		again, err := ParseName(n.String())
		if err != nil || again != n {
			t.Errorf("%q: %+v, again %+v, %v", s, n, again, err)
		}
		if strings.Contains("/"+n.Path+"/", "/../") || strings.Contains(n.Digest.String(), "/") {
			t.Errorf("%q: %+v leads out of a directory", s, n)
		}
	})
}
