package unixsock

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSendRecv(t *testing.T) {
	for _, name := range []string{"short", strings.Repeat("l", 100) + "/" + strings.Repeat("m", 60)} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := Dial(path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := Accept(l)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		null, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		if err := SendFD(c, []byte("hello"), int(null.Fd())); err != nil {
			t.Fatal(err)
		}
		null.Close()
		buf := make([]byte, 64)
		n, fd, err := RecvFD(s, buf)
		if err != nil || string(buf[:n]) != "hello" {
			t.Fatalf("RecvFD = %q, %v", buf[:n], err)
		}
		got := os.NewFile(uintptr(fd), "received")
		if target, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); err != nil || target != "/dev/null" {
			t.Errorf("received descriptor is %s, %v", target, err)
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("flags of the received descriptor = %d, %v; want close on exec", flags, err)
		}
		got.Close()
	}
}

func TestDatagram(t *testing.T) {
	for _, name := range []string{"short", strings.Repeat("l", 100) + "/" + strings.Repeat("m", 60)} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := ListenDatagram(path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := DialDatagram(path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, text := range []string{"one", "two"} {
			if _, err := c.WriteString(text); err != nil {
				t.Fatal(err)
			}
		}
		buf := make([]byte, 64)
		for _, want := range []string{"one", "two"} {
			if n, err := l.Read(buf); err != nil || string(buf[:n]) != want {
				t.Errorf("read %q, %v, want %q", buf[:n], err, want)
			}
		}
	}
	name := "@tare-test-" + strconv.Itoa(os.Getpid())
	l, err := ListenDatagram(name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := DialDatagram(name)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestRecvRefuses(t *testing.T) {
	a, b, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	before := openFiles(t)
	if err := unix.Sendmsg(int(a.Fd()), []byte("x"), unix.UnixRights(0, 1, 2), nil, 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := RecvFD(b, make([]byte, 8)); err == nil || !strings.Contains(err.Error(), "got 3") {
		t.Errorf("three descriptors: %v", err)
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d descriptors open, want %d", after, before)
	}
	if _, err := a.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := RecvFD(b, make([]byte, 8)); err == nil || !strings.Contains(err.Error(), "got 0") {
		t.Errorf("no descriptor: %v", err)
	}
	a.Close()
	if _, _, err := RecvFD(b, make([]byte, 8)); err == nil || !strings.Contains(err.Error(), "closed the connection") {
		t.Errorf("closed: %v", err)
	}
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
