package mountinfo_test

import (
	"os"
	"reflect"
	"testing"

	"github.com/tare-oci/tare/internal/mountinfo"
)

func TestParse(t *testing.T) {
	got := mountinfo.Parse("36 35 98:0 /mnt1 /mnt\\0402\\134 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n" +
		"37 36 0:5 / /proc rw - proc proc rw\nbroken line\n38 36 0:6 / /x\\04 rw shared:1 - tmpfs  rw\n")
	want := []mountinfo.Mount{
		{ID: 36, Parent: 35, Device: "98:0", Peers: "master:1", Root: "/mnt1", Point: `/mnt 2\`, Options: "rw,noatime", FSType: "ext3", Source: "/dev/root", Super: "rw,errors=continue"},
		{ID: 37, Parent: 36, Device: "0:5", Root: "/", Point: "/proc", Options: "rw", FSType: "proc", Source: "proc", Super: "rw"},
		{ID: 38, Parent: 36, Device: "0:6", Peers: "shared:1", Root: "/", Point: `/x\04`, Options: "rw", FSType: "tmpfs", Super: "rw"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestOf(t *testing.T) {
	if mounts, err := mountinfo.Of(os.Getpid()); err != nil || len(mounts) == 0 {
		t.Fatal(mounts, err)
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
