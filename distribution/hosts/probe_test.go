package hosts

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/tare-oci/tare/image/reference"
)

// A registry on this machine is spoken to as it speaks itself, unless a file says how.
func TestLoopbackSpeaks(t *testing.T) {
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	secure := httptest.NewTLSServer(handler)
	defer secure.Close()
	plain := httptest.NewServer(handler)
	defer plain.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	c, err := Load(Options{})
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		secure.Listener.Addr().String(): "https://", plain.Listener.Addr().String(): "http://", gone.Addr().String(): "http://",
	} {
		n, err := reference.ParseName(address + "/a")
		if err != nil {
			t.Fatal(err)
		}
		list, err := c.Endpoints(n)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := list[0].Base().String(), want+address; got != want {
			t.Errorf("%s is spoken to at %s, want %s", address, got, want)
		}
	}
}
