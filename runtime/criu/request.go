package criu

import "fmt"

// Kind is the type of a request, with criu's numbers (criu's rpc.proto, criu_req_type).
type Kind int

// The requests that are made.
const (
	Dump         Kind = 1
	Restore      Kind = 2
	Check        Kind = 3
	PreDump      Kind = 4
	notify       Kind = 6 // criu tells a stage, or it is acknowledged
	featureCheck Kind = 9
	version      Kind = 10
)

// String is the request's name in error sentences.
func (k Kind) String() string {
	switch k {
	case Dump:
		return "dump"
	case Restore:
		return "restore"
	case Check:
		return "check"
	case PreDump:
		return "pre-dump"
	case featureCheck:
		return "feature check"
	case version:
		return "version"
	}
	return fmt.Sprintf("request %d", int(k))
}

// CgroupMode says what criu does with cgroups (criu_cg_mode).
type CgroupMode int

// The modes that --manage-cgroups-mode names.
const (
	CgroupsIgnore CgroupMode = 0
	CgroupsSoft   CgroupMode = 3
	CgroupsFull   CgroupMode = 4
	CgroupsStrict CgroupMode = 5
)

// Pair is a key of criu and the value that stands for it.
type Pair struct{ Key, Value string }

// Inherit makes criu use a descriptor of its own in place of what had the key when the container was dumped.
type Inherit struct {
	Key string
	FD  int
}

// Options are those of criu's options that are used. False and empty are criu's defaults.
type Options struct {
	ImagesFD, WorkFD int // descriptors of this process: criu opens them through /proc
	PID              int // dump: the root of the process tree
	LogFile          string
	LogLevel         int
	Root             string // restore: a mount point, the new root
	ParentImages     string // relative to the images
	FreezeCgroup     string // dump: the directory of the container's freezer

	LeaveRunning, ExtUnixSockets, TCPEstablished, TCPSkipInFlight bool
	ShellJob, FileLocks, LinkRemap, TrackMemory, AutoDedup        bool
	LazyPages, EvasiveDevices, Sibling                            bool

	Cgroups    CgroupMode
	EmptyNS    uint64 // CLONE_NEW* flags
	Mounts     []Pair // dump: mount point and key; restore: key and path of the source
	External   []string
	Inherit    []Inherit
	JoinNS     []Pair // type and file
	StatusFD   int    // 0: none
	PageServer *PageServer
	LSMProfile string // "apparmor:NAME" or "selinux:LABEL"
	LSMContext string // of mounts
	NFTables   bool   // lock the network by nftables, for which criu needs no other program; false: by iptables
}

// PageServer is where memory pages are sent instead of being written to the images.
type PageServer struct {
	Address string
	Port    int
}

// encode returns the options as criu_opts.
func (o *Options) encode() message {
	var m message
	m = m.number(1, int64(o.ImagesFD))
	if o.PID != 0 {
		m = m.number(2, int64(o.PID))
	}
	m = m.flag(3, o.LeaveRunning).flag(4, o.ExtUnixSockets).flag(5, o.TCPEstablished).flag(6, o.EvasiveDevices).flag(7, o.ShellJob).
		flag(8, o.FileLocks).number(9, int64(o.LogLevel)).text(10, o.LogFile)
	if ps := o.PageServer; ps != nil {
		m = m.nested(11, message(nil).text(1, ps.Address).number(2, int64(ps.Port)))
	}
	m = m.flag(12, true) // notifications
	m = m.text(13, o.Root).text(14, o.ParentImages).flag(15, o.TrackMemory).flag(16, o.AutoDedup)
	if o.WorkFD > 0 {
		m = m.number(17, int64(o.WorkFD))
	}
	m = m.flag(18, o.LinkRemap)
	for _, p := range o.Mounts {
		m = m.nested(23, message(nil).text(1, p.Key).text(2, p.Value))
	}
	m = m.flag(24, o.Cgroups != CgroupsIgnore).flag(26, o.Sibling)
	for _, i := range o.Inherit {
		m = m.nested(27, message(nil).text(1, i.Key).number(2, int64(i.FD)))
	}
	m = m.number(34, int64(o.Cgroups))
	for _, e := range o.External {
		m = m.text(37, e)
	}
	if o.EmptyNS != 0 {
		m = m.number(38, int64(o.EmptyNS))
	}
	for _, p := range o.JoinNS {
		m = m.nested(39, message(nil).text(1, p.Key).text(2, p.Value))
	}
	m = m.text(44, o.FreezeCgroup).flag(46, o.TCPSkipInFlight).flag(48, o.LazyPages)
	if o.StatusFD > 0 {
		m = m.number(49, int64(o.StatusFD))
	}
	m = m.flag(50, true).text(53, o.LSMProfile).text(63, o.LSMContext) // 50: a terminal's master is handed over
	if o.NFTables {
		m = m.number(64, 2)
	}
	return m
}

// request is criu_req.
func request(k Kind, o *Options, keepOpen bool) message {
	m := message(nil).number(1, int64(k))
	if o != nil {
		m = m.nested(2, o.encode())
	}
	return m.flag(4, keepOpen)
}

// acknowledge is the answer to a notification.
func acknowledge() message { return message(nil).number(1, int64(notify)).flag(3, true) }

// response is criu_resp.
type response struct {
	kind    Kind
	success bool
	pid     int    // of a restored root task
	script  string // notification
	notePID int
	errno   int
	errmsg  string
	version int // major*10000 + minor*100 + sublevel, as criu's own library counts
	lazy    bool
	track   bool
}

func decodeResponse(data []byte) (r response, err error) {
	err = decode(data, func(f field) error {
		switch f.id {
		case 1:
			r.kind = Kind(f.value)
		case 2:
			r.success = f.value != 0
		case 4:
			return decode(f.bytes, func(f field) error {
				if f.id == 1 {
					r.pid = int(int32(f.value))
				}
				return nil
			})
		case 5:
			return decode(f.bytes, func(f field) error {
				switch f.id {
				case 1:
					r.script = string(f.bytes)
				case 2:
					r.notePID = int(int32(f.value))
				}
				return nil
			})
		case 7:
			r.errno = int(int32(f.value))
		case 8:
			return decode(f.bytes, func(f field) error {
				switch f.id {
				case 1:
					r.track = f.value != 0
				case 2:
					r.lazy = f.value != 0
				}
				return nil
			})
		case 9:
			r.errmsg = string(f.bytes)
		case 10:
			return decode(f.bytes, func(f field) error {
				switch f.id {
				case 1:
					r.version += int(int32(f.value)) * 10000
				case 2:
					r.version += int(int32(f.value)) * 100
				case 4:
					r.version += int(int32(f.value))
				}
				return nil
			})
		}
		return nil
	})
	return r, err
}
