package dbus

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tare-oci/tare/internal/sys/unixsock"
)

func TestParse(t *testing.T) {
	u32 := func(n uint32) Value { return Uint32(n) }
	for text, want := range map[string]Value{
		"true":                        Bool(true),
		" boolean false ":             Bool(false),
		"5":                           {Sig: "i", Num: 5},
		"-5":                          {Sig: "i", Num: 1<<64 - 5},
		"uint64 18446744073709551615": Uint64(1<<64 - 1),
		"@t 0x10":                     Uint64(16),
		"uint32 010":                  u32(8),
		"byte 255":                    {Sig: "y", Num: 255},
		"1.5":                         {Sig: "d", Num: 0x3ff8000000000000},
		"'a\\'b'":                     String("a'b"),
		`"tab\t\u00e9"`:               String("tab\té"),
		"['a', \"b\"]":                Strings("a", "b"),
		"@as []":                      Strings(),
		"[uint32 1, 2,]":              Uint32s(1, 2),
		"@a(ss) [('a', 'b')]":         Array("(ss)", Struct(String("a"), String("b"))),
		"('x', <uint64 7>)":           Struct(String("x"), Variant(Uint64(7))),
		"b'ab'":                       Bytes([]byte("ab\x00")),
		"objectpath '/a/b'":           {Sig: "o", Str: "/a/b"},
		"[[1], [2]]":                  Array("ai", Array("i", Value{Sig: "i", Num: 1}), Array("i", Value{Sig: "i", Num: 2})),
	} {
		got, err := Parse(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "x", "'a", "[1, 'a']", "[]", "uint32 -1", "byte 256", "9999999999", "1 2", "@ii 1", "@as ['a', 1]",
		"()", "(1", "<1", "@a{sv} {}", "{'a': <1>}", "uint32 'a'", "1_000", "objectpath 'a'", "'\x00'", strings.Repeat("[", 50) + "1",
		"'\\u00'", "\"\xff\"", "@(ii) (1)", "@(i) (1, 2)"} {
		if v, err := Parse(bad); err == nil {
			t.Errorf("%q was taken: %+v", bad, v)
		}
	}
}

func TestSeconds(t *testing.T) {
	for text, want := range map[string]uint64{"5": 5e6, "uint64 7": 7e6, "1.5": 15e5, "@x 2": 2e6} {
		v, _ := Parse(text)
		if got, err := v.Seconds(); err != nil || got.Num != want || got.Sig != "t" {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"-1", "'5'", "uint64 18446744073709551615", "-0.5", "true"} {
		v, _ := Parse(bad)
		if got, err := v.Seconds(); err == nil {
			t.Errorf("%s: %+v", bad, got)
		}
	}
}

// message is one with all kinds of values in it.
func message() *Message {
	v := func(text string) Value {
		v, err := Parse(text)
		if err != nil {
			panic(err)
		}
		return v
	}
	return &Message{Type: typeSignal, Serial: 7, ReplySerial: 9, Path: "/a", Interface: "b.c", Member: "D", Destination: ":1.2", Sender: ":1.1",
		Body: []Value{v("'x'"), v("byte 1"), v("uint64 2"), v("int16 -3"), v("uint16 4"), v("int32 -5"), v("int64 -6"), v("1.5"), v("true"),
			v("@a(sv) [('k', <['a', 'b']>), ('l', <uint32 4>)]"), v("@at []"), v("signature 'as'"), v("(byte 1, uint64 2)"), Bytes([]byte("abc"))}}
}

func TestMessage(t *testing.T) {
	m := message()
	b, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := read(bytes.NewReader(b))
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("%+v, %v, want %+v", got, err, m)
	}
	for n := range b { // cut off, and with any byte another: never a panic
		if _, err := read(bytes.NewReader(b[:n])); err == nil {
			t.Errorf("a message of %d bytes cut off after %d was taken", len(b), n)
		}
		for _, x := range []byte{0, 1, 0x7f, 0xff} {
			c := bytes.Clone(b)
			c[n] ^= x
			_, _ = read(bytes.NewReader(c))
		}
	}
	for _, bad := range []Value{String("a\x00"), String("\xff"), {}, Array("s", Uint32(1)), {Sig: "v"}} {
		if _, err := (&Message{Body: []Value{bad}}).encode(); err == nil {
			t.Errorf("%+v was encoded", bad)
		}
	}
	if _, err := read(bytes.NewReader([]byte("l\x02\x00\x01\xff\xff\xff\x7f\x01\x00\x00\x00\x00\x00\x00\x00"))); err == nil || !strings.Contains(err.Error(), "the limit is") {
		t.Errorf("a message of 2 GiB: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	b, _ := message().encode()
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := read(bytes.NewReader(b)); err == nil {
			if _, err := m.encode(); err != nil && !strings.Contains(err.Error(), "UTF-8") {
				t.Logf("read, and not written: %v", err)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("@a(sv) [('k', <['a', \"b\"]>)]")
	f.Fuzz(func(t *testing.T, s string) { _, _ = Parse(s) })
}

func TestAddress(t *testing.T) {
	for address, want := range map[string]string{"unix:path=/run/bus": "/run/bus", "unix:guid=1,path=/a%20b%2c": "/a b,", "unix:abstract=/tmp/x": "@/tmp/x",
		"tcp:host=x": "", "unix:guid=1": "", "unix:path=/a%2": "", "unix:path=%zz": "", "": ""} {
		if got, err := socketPath(address); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", address, got, err)
		}
	}
}

// fakeBus accepts one client and answers each call by the answers in turn.
func fakeBus(t *testing.T, answers ...func(call *Message) []*Message) (address string) {
	path := filepath.Join(t.TempDir(), "bus")
	l, err := unixsock.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer l.Close()
		c, err := unixsock.Accept(l)
		if err != nil {
			return
		}
		defer c.Close()
		r := bufio.NewReader(c)
		for _, want := range []string{"\x00AUTH EXTERNAL\r\n", "DATA\r\n"} {
			if line, _ := r.ReadString('\n'); line != want {
				t.Errorf("line %q, want %q", line, want)
			}
		}
		c.WriteString("DATA\r\nOK 0123\r\n")
		r.ReadString('\n')
		serial := uint32(100)
		for _, answer := range answers {
			call, err := read(r)
			if err != nil {
				return
			}
			for _, m := range answer(call) {
				serial++
				m.Serial = serial
				b, err := m.encode()
				if err != nil {
					t.Error(err)
				}
				c.Write(b)
			}
		}
		r.ReadByte()
	}()
	return "unix:path=/nothing/here;unix:path=" + path
}

func hello(call *Message) []*Message {
	return []*Message{{Type: typeReply, ReplySerial: call.Serial, Body: []Value{String(":1.5")}}}
}

func TestCallAndSignal(t *testing.T) {
	signal := func(job string) *Message {
		return &Message{Type: typeSignal, Path: "/m", Interface: "i.M", Member: "Done", Body: []Value{String(job)}}
	}
	address := fakeBus(t, hello, func(call *Message) []*Message {
		if call.Member != "Start" || len(call.Body) != 1 || call.Body[0].Str != "x" {
			t.Errorf("call %+v", call)
		}
		return []*Message{signal("other"), signal("mine"), {Type: typeReply, ReplySerial: 999}, {Type: typeReply, ReplySerial: call.Serial, Body: []Value{String("mine")}}}
	}, func(call *Message) []*Message {
		return []*Message{{Type: typeError, ReplySerial: call.Serial, ErrorName: "a.b.NoSuch", Body: []Value{String("there is none")}}}
	})
	c, err := Connect(context.Background(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	body, err := c.Call(context.Background(), "d", "/m", "i.M", "Start", String("x"))
	if err != nil || len(body) != 1 || body[0].Str != "mine" {
		t.Fatalf("%+v, %v", body, err)
	}
	if _, err := c.Signal(context.Background(), "i.M", "Done", func(b []Value) bool { return b[0].Str == "mine" }); err != nil {
		t.Error(err)
	}
	_, err = c.Call(context.Background(), "d", "/m", "i.M", "Stop")
	if !Is(err, "a.b.NoSuch") || !strings.Contains(err.Error(), "call Stop: there is none (a.b.NoSuch)") {
		t.Errorf("%v", err)
	}
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := c.Signal(short, "i.M", "Done", func([]Value) bool { return true }); err == nil || time.Since(begin) > 5*time.Second {
		t.Errorf("a signal that does not come: %v after %v", err, time.Since(begin))
	}
}

func TestRefusals(t *testing.T) {
	for name, answer := range map[string]string{"rejected": "REJECTED EXTERNAL\r\n", "endless": strings.Repeat("x", 100000), "closed": ""} {
		path := filepath.Join(t.TempDir(), "bus")
		l, err := unixsock.Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if c, err := unixsock.Accept(l); err == nil {
				c.Read(make([]byte, 100))
				c.WriteString(answer)
				c.Close()
			}
		}()
		if c, err := Connect(context.Background(), "unix:path="+path); err == nil {
			c.Close()
			t.Errorf("%s: no error", name)
		}
		l.Close()
	}
}

// TestDaemon talks to the reference implementation of the bus.
func TestDaemon(t *testing.T) {
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		t.Skip("dbus-daemon is not installed (package dbus)")
	}
	dir := t.TempDir()
	address := "unix:path=" + filepath.Join(dir, "bus")
	cmd := exec.Command("dbus-daemon", "--session", "--nofork", "--print-address=1", "--address="+address)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	c, err := Connect(ctx, strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.AddMatch(ctx, "type='signal',interface='org.freedesktop.DBus',member='NameOwnerChanged'"); err != nil {
		t.Fatal(err)
	}
	body, err := c.Call(ctx, bus, busPath, bus, "RequestName", String("org.example.Test"), Uint32(0))
	if err != nil || len(body) != 1 || body[0].Num != 1 {
		t.Fatalf("%+v, %v", body, err)
	}
	if _, err := c.Signal(ctx, bus, "NameOwnerChanged", func(b []Value) bool { return b[0].Str == "org.example.Test" }); err != nil {
		t.Error(err)
	}
	body, err = c.Call(ctx, bus, busPath, bus, "GetConnectionUnixUser", String("org.example.Test"))
	if err != nil || int(body[0].Num) != os.Getuid() {
		t.Errorf("%+v, %v", body, err)
	}
	body, err = c.Call(ctx, bus, busPath, "org.freedesktop.DBus.Properties", "Get", String(bus), String("Features"))
	if err != nil || body[0].Sig != "v" || body[0].Items[0].Sig != "as" {
		t.Errorf("%+v, %v", body, err)
	}
	if _, err := c.Call(ctx, bus, busPath, bus, "GetNameOwner", String("org.example.Nobody")); !Is(err, "org.freedesktop.DBus.Error.NameHasNoOwner") {
		t.Errorf("%v", err)
	}
}
