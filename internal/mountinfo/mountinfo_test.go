package mountinfo_test

import (
	"reflect"
	"testing"

	"github.com/tare-oci/tare/internal/mountinfo"
)

func TestParse(t *testing.T) {
	got := mountinfo.Parse("36 35 98:0 /mnt1 /mnt\\0402\\134 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n" +
		"37 36 0:5 / /proc rw - proc proc rw\nbroken line\n38 36 0:6 / /x\\04 rw shared:1 - tmpfs  rw\n")
	want := []mountinfo.Mount{
		{Root: "/mnt1", Point: `/mnt 2\`, Options: "rw,noatime", FSType: "ext3", Source: "/dev/root", Super: "rw,errors=continue"},
		{Root: "/", Point: "/proc", Options: "rw", FSType: "proc", Source: "proc", Super: "rw"},
		{Root: "/", Point: `/x\04`, Options: "rw", FSType: "tmpfs", Super: "rw"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestSelf(t *testing.T) {
	mounts, err := mountinfo.Self()
	if err != nil || len(mounts) == 0 {
		t.Fatal(mounts, err)
	}
	for _, m := range mounts {
		if m.Point == "/" {
			return
		}
	}
	t.Errorf("no root among %+v", mounts)
}
