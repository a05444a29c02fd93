package pty

import (
	"os"
	"strings"
	"testing"
)

func open(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, slave, err := Open("/dev/ptmx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close(); slave.Close() })
	return master, slave
}

func TestOpen(t *testing.T) {
	master, slave := open(t)
	if !strings.HasPrefix(slave.Name(), "/dev/pts/") || !IsTerminal(slave) || !IsTerminal(master) {
		t.Errorf("slave is %s", slave.Name())
	}
	if _, err := master.Write([]byte("line\n")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if n, err := slave.Read(buf); err != nil || string(buf[:n]) != "line\n" {
		t.Errorf("slave read %q, %v", buf[:n], err)
	}
}

func TestSize(t *testing.T) {
	master, slave := open(t)
	want := Size{Rows: 1, Cols: 300}
	if err := SetSize(master, want); err != nil {
		t.Fatal(err)
	}
	if got, err := GetSize(slave); err != nil || got != want {
		t.Errorf("GetSize = %v, %v", got, err)
	}
}

func TestRaw(t *testing.T) {
	_, slave := open(t)
	old, err := MakeRaw(slave)
	if err != nil {
		t.Fatal(err)
	}
	if c, lines := old.EOF(); c != 4 || !lines {
		t.Errorf("EOF before = %d, %v", c, lines)
	}
	raw, err := Get(slave)
	if err != nil {
		t.Fatal(err)
	}
	if _, lines := raw.EOF(); lines {
		t.Error("a raw terminal reads by lines")
	}
	if err := Restore(slave, old); err != nil {
		t.Fatal(err)
	}
	if now, err := Get(slave); err != nil || *now != *old {
		t.Errorf("restored settings = %v, %v, want %v", now, err, old)
	}
}

func TestNotATerminal(t *testing.T) {
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if IsTerminal(f) {
		t.Error("/dev/null is a terminal")
	}
	if _, err := GetSize(f); err == nil || !strings.HasSuffix(err.Error(), "inappropriate ioctl for device") {
		t.Errorf("GetSize = %v", err)
	}
}
