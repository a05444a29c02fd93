package unixsock

import (
	"errors"
	"os"
	"syscall"
	"testing"
)

func TestMessages(t *testing.T) {
	a, b, err := MessagePair()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	buf := make([]byte, 8)
	if err := SendMessage(b, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := SendFD(b, []byte("two"), int(b.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := SendMessage(b, []byte("more than eight")); err != nil {
		t.Fatal(err)
	}
	if n, fd, err := ReceiveMessage(a, buf); string(buf[:n]) != "one" || fd != -1 || err != nil {
		t.Fatalf("first message: %q, descriptor %d, %v", buf[:n], fd, err)
	}
	n, fd, err := ReceiveMessage(a, buf)
	if string(buf[:n]) != "two" || fd < 0 || err != nil {
		t.Fatalf("second message: %q, descriptor %d, %v", buf[:n], fd, err)
	}
	os.NewFile(uintptr(fd), "received").Close()
	if _, _, err := ReceiveMessage(a, buf); !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("a message that does not fit: %v", err)
	}
	b.Close()
	if n, _, err := ReceiveMessage(a, buf); n != 0 || err != nil {
		t.Errorf("after the end: %d bytes, %v", n, err)
	}
}
