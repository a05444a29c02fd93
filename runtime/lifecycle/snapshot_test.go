package lifecycle

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tare-oci/tare/internal/leaks"
)

// snapshot looks at mounts, cgroups, namespaces, descriptors, threads, processes, and files of the bundle and the state: what an
// operation could leave behind.
func (b *faultBundle) snapshot() leaks.List {
	b.t.Helper()
	s, err := leaks.Own()
	if err != nil {
		b.t.Fatal(err)
	}
	groups, err := leaks.Cgroups(func(path string) bool { return strings.Contains(path, b.create.ID) })
	if err != nil {
		b.t.Fatal(err)
	}
	files, err := leaks.Files(b.dir)
	if err != nil {
		b.t.Fatal(err)
	}
	s = append(append(s, groups...), files...)
	return append(append(s, b.deviceState()...), b.classes()...)
}

// awaitSame gives what ends by itself, a process that was killed or a copying goroutine, a second to do so.
func (b *faultBundle) awaitSame(before leaks.List) (diff string) {
	b.t.Helper()
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		if diff = before.Diff(b.snapshot()); diff == "" || time.Since(begin) > time.Second {
			return diff
		}
	}
}

// consoleSocket takes terminals and closes them when the sender is done.
type consoleSocket struct{ path string }

func listenConsole(t *testing.T, path string) *consoleSocket {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			c.Read(make([]byte, 4096)) // without room for it the descriptor is closed
			c.Close()
		}
	}()
	return &consoleSocket{path}
}
