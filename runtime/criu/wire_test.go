package criu

import (
	"encoding/hex"
	"errors"
	"testing"
)

// The bytes are what criu's own Python library makes of the same message.
func TestEncode(t *testing.T) {
	o := &Options{ImagesFD: 5, WorkFD: 6, PID: 300, LogFile: "l", LogLevel: 4, Mounts: []Pair{{"/a", "k"}}, Cgroups: CgroupsSoft,
		Inherit: []Inherit{{"pipe:[1]", 2}}, EmptyNS: 0x40000000, External: []string{"net[7]:n"}, LeaveRunning: true, NFTables: true}
	got := hex.EncodeToString(request(Dump, o, true))
	const want = "08011248080510ac021801480452016c6001880106ba01070a022f6112016bc00101da010c0a08706970653a5b315d1002900203aa02" +
		"086e65745b375d3a6eb00280808080049003018004022001"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := hex.EncodeToString(message(nil).number(1, -1)); got != "08ffffffffffffffffff01" {
		t.Errorf("-1 is %s", got)
	}
	if got := hex.EncodeToString(acknowledge()); got != "08061801" {
		t.Errorf("acknowledgement: %s", got)
	}
}

func TestDecodeResponse(t *testing.T) {
	note := message(nil).number(1, int64(notify)).number(2, 1).nested(5, message(nil).text(1, "post-restore").number(2, 77))
	r, err := decodeResponse(note)
	if err != nil || r.kind != notify || !r.success || r.script != "post-restore" || r.notePID != 77 {
		t.Errorf("%+v, %v", r, err)
	}
	v := message(nil).number(1, int64(version)).number(2, 1).nested(10, message(nil).number(1, 3).number(2, 17).number(4, 1))
	if r, err = decodeResponse(v); err != nil || r.version != 31701 {
		t.Errorf("%+v, %v", r, err)
	}
	fail := message(nil).number(1, int64(Dump)).number(2, 0).number(7, 22).text(9, "no\n")
	if r, err = decodeResponse(fail); err != nil || r.success || r.errno != 22 || reason(r) != "no?" {
		t.Errorf("%+v, %q, %v", r, reason(r), err)
	}
	for n := range fail {
		decodeResponse(fail[:n]) // does not panic
	}
	for _, bad := range []string{"08", "0aff01", "0d000000", "0900", "0b", "00"} {
		data, _ := hex.DecodeString(bad)
		if err := decode(data, func(field) error { return nil }); err == nil {
			t.Errorf("%s gives no error", bad)
		}
	}
	stop := errors.New("stop")
	if err := decode(fail, func(field) error { return stop }); err != stop {
		t.Errorf("%v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(message(nil).number(1, 2).text(3, "x").nested(5, message(nil).number(1, 1))))
	f.Fuzz(func(_ *testing.T, data []byte) { decodeResponse(data) })
}
