package manifest

import (
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/image-spec/specs-go/v1"
)

func TestParsePlatform(t *testing.T) {
	for in, want := range map[string]string{
		"linux/amd64": "linux/amd64", "linux/x86_64": "linux/amd64", "Linux/AMD64/v1": "linux/amd64", "linux/amd64/v3": "linux/amd64/v3",
		"linux/arm64/v8": "linux/arm64", "linux/aarch64": "linux/arm64", "linux/arm64/8": "linux/arm64", "linux/arm64/v8.2": "linux/arm64/v8.2",
		"linux/arm": "linux/arm/v7", "linux/armhf": "linux/arm/v7", "linux/armel": "linux/arm/v6", "linux/arm/v5": "linux/arm/v5",
		"linux/i386": "linux/386", "arm64": runtime.GOOS + "/arm64", "arm/v6": runtime.GOOS + "/arm/v6", "riscv64/rva20u64": runtime.GOOS + "/riscv64",
		"": "", "linux": "", "linux/": "", "linux/a/b/c": "", "linux/a b": "", "../x": "../x", "a/\x1b": "", "amd64/v1/x/y": "",
	} {
		p, err := ParsePlatform(in)
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), "malformed") {
				t.Errorf("%q: %s, error %v", in, p, err)
			}
		} else if err != nil || p.String() != want {
			t.Errorf("%q: %s, want %s, error %v", in, p, want, err)
		}
	}
}

// TestSelect gives, for each platform, what is chosen from a list, best first.
func TestSelect(t *testing.T) {
	for _, c := range []struct{ platform, entries, want string }{
		{"linux/amd64", "linux/386 linux/amd64/v2 linux/amd64 linux/amd64/v1", "linux/amd64 linux/amd64/v1"},
		{"linux/amd64/v3", "linux/amd64 linux/amd64/v4 linux/amd64/v2 linux/amd64/v3", "linux/amd64/v3 linux/amd64/v2 linux/amd64"},
		{"+linux/amd64", "linux/386 linux/amd64", "linux/amd64 linux/386"},
		{"linux/arm/v6", "linux/arm/v7 linux/arm/v5 linux/arm/v6", "linux/arm/v6 linux/arm/v5"},
		{"linux/arm/v7", "linux/arm/v6 linux/arm", "linux/arm linux/arm/v6"},
		{"linux/arm64", "linux/arm64/v9 linux/arm/v7 linux/arm64/v8", "linux/arm64/v8"},
		{"+linux/arm64", "linux/arm/v6 linux/arm/v7 linux/arm64/v8", "linux/arm64/v8 linux/arm/v7 linux/arm/v6"},
		{"linux/arm64/v9", "linux/arm64/v8.6 linux/arm64/v8.5 linux/arm64/v8", "linux/arm64/v8.5 linux/arm64/v8"},
		{"linux/ppc64le/power9", "linux/ppc64le/power8 linux/ppc64le/power10", "linux/ppc64le/power8"},
		{"linux/s390x", "linux/s390x/z13 linux/s390x", "linux/s390x"},
		{"linux/amd64", "unknown/unknown - windows/amd64 linux/amd64", "linux/amd64 -"},
		{"linux/amd64", "unknown/unknown", ""},
		{"linux/amd64", "linux/amd64/vx linux/amd64/v1.x linux/amd64/v999", ""},
	} {
		host := strings.HasPrefix(c.platform, "+")
		p, err := ParsePlatform(strings.TrimPrefix(c.platform, "+"))
		if err != nil {
			t.Fatal(err)
		}
		p.Fallbacks = host
		var entries []v1.Descriptor
		for name := range strings.FieldsSeq(c.entries) {
			d := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Annotations: map[string]string{"name": name}}
			if parts := append(strings.Split(name, "/"), ""); len(parts) > 2 {
				d.Platform = &v1.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
			}
			entries = append(entries, d)
		}
		chosen, err := Select(entries, p)
		var names []string
		for _, d := range chosen {
			names = append(names, d.Annotations["name"])
		}
		if got := strings.Join(names, " "); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s from %s: chose %q, want %q, error %v", c.platform, c.entries, got, c.want, err)
		}
	}
}

// TestSelectSkips leaves out what is not an image though its platform fits.
func TestSelectSkips(t *testing.T) {
	fits := &v1.Platform{OS: "linux", Architecture: "amd64"}
	entries := []v1.Descriptor{
		{MediaType: "application/xml", Platform: fits},
		{MediaType: v1.MediaTypeImageManifest, ArtifactType: "application/spdx+json", Platform: fits},
		{MediaType: v1.MediaTypeImageManifest, Platform: fits, Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest"}},
		{MediaType: v1.MediaTypeImageManifest, Platform: &v1.Platform{OS: "linux", Architecture: "evil\x1b[2J"}},
	}
	_, err := Select(entries, Platform{OS: "linux", Architecture: "amd64"})
	if err == nil || err.Error() != "no image for platform linux/amd64: available are linux/evil?[2j" {
		t.Error(err)
	}
	_, err = Select(entries[:3], Platform{OS: "linux", Architecture: "amd64"})
	if err == nil || err.Error() != "no image for platform linux/amd64: there is no image for any platform" {
		t.Error(err)
	}
}

func TestHost(t *testing.T) {
	h := Host()
	if h.OS != runtime.GOOS || h.Architecture != runtime.GOARCH || h.Rank(runtime.GOOS, runtime.GOARCH, "") < 0 && runtime.GOARCH != "arm" {
		t.Errorf("host %+v", h)
	}
}

func FuzzPlatform(f *testing.F) {
	for _, s := range []string{"linux/amd64", "linux/arm64/v8.2", "linux/arm/v7", "ppc64le/power9", "armhf"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePlatform(s)
		if err != nil {
			return
		}
		if again, err := ParsePlatform(p.String()); err != nil || again != p {
			t.Errorf("%q: %v, again %v, %v", s, p, again, err)
		}
		if p.Rank(p.OS, p.Architecture, p.Variant) != 0 {
			t.Errorf("%v does not fit itself", p)
		}
	})
}
