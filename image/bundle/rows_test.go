package bundle

import (
	"maps"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestConversion is CV1, CV4, CV5, CV8 and CV10: what becomes of an image's fields, all of them and none.
func TestConversion(t *testing.T) {
	created := time.Date(2020, 1, 2, 3, 4, 5, 600, time.UTC)
	full := v1.Image{
		Created: &created, Author: "the author",
		Platform: v1.Platform{OS: "linux", Architecture: "arm", Variant: "v7", OSVersion: "1.2", OSFeatures: []string{"a", "b"}},
		Config: v1.ImageConfig{Cmd: []string{"x"}, WorkingDir: "/w/./x", StopSignal: "SIGQUIT",
			ExposedPorts: map[string]struct{}{"80/tcp": {}, "53/udp": {}},
			Labels:       map[string]string{"k": "", "org.opencontainers.image.author": "the label", "org.opencontainers.image.vendor": "v"}},
	}
	const prefix = "org.opencontainers.image."
	for _, c := range []struct {
		image v1.Image
		cwd   string
		want  map[string]string
	}{
		{image(v1.ImageConfig{Cmd: []string{"x"}}), "/", map[string]string{prefix + "os": "linux", prefix + "architecture": "amd64"}},
		{full, "/w/./x", map[string]string{
			prefix + "os": "linux", prefix + "architecture": "arm", prefix + "variant": "v7", prefix + "os.version": "1.2", prefix + "os.features": "a,b",
			prefix + "created": "2020-01-02T03:04:05.0000006Z", prefix + "author": "the label", prefix + "stopSignal": "SIGQUIT",
			prefix + "exposedPorts": "53/udp,80/tcp", prefix + "vendor": "v", "k": "",
		}},
	} {
		s, err := Spec(Input{Image: c.image, Root: rootfs(t, nil)})
		if err != nil {
			t.Fatal(err)
		}
		if s.Process.Cwd != c.cwd || !maps.Equal(s.Annotations, c.want) {
			t.Errorf("cwd %s, annotations %v\nwant %s, %v", s.Process.Cwd, s.Annotations, c.cwd, c.want)
		}
	}
}
