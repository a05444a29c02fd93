package cgroup

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/sys/bpf"
)

// run interprets a device program for one access, as the kernel does.
func run(t *testing.T, prog []bpf.Instruction, typ, access, major, minor uint32) bool {
	t.Helper()
	ctx := [3]uint32{access<<16 | typ, major, minor}
	var r [11]uint64
	for pc, steps := 0, 0; pc < len(prog); pc, steps = pc+1, steps+1 {
		in := prog[pc]
		switch in.Op {
		case bpf.OpLoad32:
			if in.Src != 1 {
				t.Fatalf("instruction %d loads from r%d", pc, in.Src)
			}
			r[in.Dst] = uint64(ctx[in.Off/4])
		case bpf.OpMovReg:
			r[in.Dst] = uint64(uint32(r[in.Src]))
		case bpf.OpMovImm64:
			r[in.Dst] = uint64(int64(in.Imm))
		case bpf.OpAndImm:
			r[in.Dst] = uint64(uint32(r[in.Dst]) & uint32(in.Imm))
		case bpf.OpRshImm:
			r[in.Dst] = uint64(uint32(r[in.Dst]) >> in.Imm)
		case bpf.OpJneImm:
			if uint32(r[in.Dst]) != uint32(in.Imm) {
				pc += int(in.Off)
			}
		case bpf.OpJsetImm:
			if uint32(r[in.Dst])&uint32(in.Imm) != 0 {
				pc += int(in.Off)
			}
		case bpf.OpJa:
			pc += int(in.Off)
		case bpf.OpExit:
			return r[0] != 0
		default:
			t.Fatalf("instruction %d: unknown operation %#x", pc, in.Op)
		}
	}
	t.Fatal("program runs past its end")
	return false
}

// naive decides an access by the text of the rules: for each bit the last rule that matches.
func naive(rules []specs.LinuxDeviceCgroup, typ string, access string, major, minor int64) bool {
	rules = append(rules[:len(rules):len(rules)],
		specs.LinuxDeviceCgroup{Allow: true, Type: "c", Access: "m"}, specs.LinuxDeviceCgroup{Allow: true, Type: "b", Access: "m"})
	for _, d := range [][2]int64{{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 2}, {10, 200}, {136, -1}} {
		r := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: p(d[0]), Access: "rwm"}
		if d[1] >= 0 {
			r.Minor = p(d[1])
		}
		rules = append(rules, r)
	}
	for _, bit := range access {
		allowed := false
		for _, r := range rules {
			if r.Type != "" && r.Type != "a" && r.Type != typ || r.Major != nil && *r.Major >= 0 && *r.Major != major ||
				r.Minor != nil && *r.Minor >= 0 && *r.Minor != minor || r.Access != "" && !strings.ContainsRune(r.Access, bit) {
				continue
			}
			allowed = r.Allow
		}
		if !allowed {
			return false
		}
	}
	return true
}

func randomRules(r *rand.Rand) []specs.LinuxDeviceCgroup {
	accesses := []string{"r", "w", "m", "rw", "rm", "wm", "rwm", "rwm", "mwr"}
	var rules []specs.LinuxDeviceCgroup
	for range r.IntN(8) {
		d := specs.LinuxDeviceCgroup{Allow: r.IntN(2) == 0, Type: []string{"", "a", "b", "c"}[r.IntN(4)], Access: accesses[r.IntN(len(accesses))]}
		if r.IntN(3) > 0 {
			d.Major = p([]int64{1, 5, 8, 9, 10, -1}[r.IntN(6)])
		}
		if r.IntN(3) > 0 {
			d.Minor = p([]int64{0, 1, 3, 200, -1}[r.IntN(5)])
		}
		rules = append(rules, d)
	}
	return rules
}

func TestDeviceProgramAgainstNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	allowed, denied := 0, 0
	for range 1000 {
		rules := randomRules(r)
		prog, err := DeviceProgram(rules)
		if err != nil {
			t.Fatal(err)
		}
		for range 40 {
			typ, access := 1+r.Uint32N(2), 1+r.Uint32N(7)
			major, minor := []uint32{1, 5, 8, 9, 10, 136, 7}[r.IntN(7)], []uint32{0, 1, 3, 200, 44}[r.IntN(5)]
			letters := ""
			for n, l := range "mrw" {
				if access>>n&1 == 1 {
					letters += string(l)
				}
			}
			got := run(t, prog, typ, access, major, minor)
			if want := naive(rules, []string{"b", "c"}[typ-1], letters, int64(major), int64(minor)); got != want {
				t.Fatalf("type %d %d:%d access %s: %v, want %v\nrules %+v", typ, major, minor, letters, got, want, rules)
			}
			if got {
				allowed++
			} else {
				denied++
			}
		}
	}
	if allowed < 2000 || denied < 2000 {
		t.Errorf("%d allowed and %d denied: the rules test nothing", allowed, denied)
	}
}

// The form for version 1 must mean the same as the rules, for every access that one exception decides.
func TestFlattenAgainstNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	compared := 0
	for range 1000 {
		rules := randomRules(r)
		l, err := parseDevices(rules)
		if err != nil {
			t.Fatal(err)
		}
		flat, err := l.flatten()
		if errors.Is(err, errors.ErrUnsupported) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		for range 40 {
			typ, bit := "bc"[r.IntN(2)], r.IntN(3)
			major, minor := []int64{1, 5, 8, 9, 10, 136, 7}[r.IntN(7)], []int64{0, 1, 3, 200, 44}[r.IntN(5)]
			got := l.allow
			for _, e := range flat {
				if e.allow == l.allow {
					t.Fatalf("exception %v is of the default's kind", e)
				}
				if e.covers(&devRule{typ: typ, major: major, minor: minor}) && e.access>>bit&1 == 1 {
					got = e.allow
				}
			}
			if want := naive(rules, string(typ), "mrw"[bit:bit+1], major, minor); got != want {
				t.Fatalf("%c %d:%d bit %d: %v, want %v\nrules %+v\nflat %+v", typ, major, minor, bit, got, want, rules, flat)
			}
			compared++
		}
	}
	if compared < 5000 {
		t.Errorf("only %d accesses compared", compared)
	}
}

func TestDeviceRules(t *testing.T) {
	deny := specs.LinuxDeviceCgroup{Access: "rwm"}
	for _, c := range []struct {
		name  string
		rules []specs.LinuxDeviceCgroup
		want  string // exceptions before the default rules, or "!" and a part of the error
	}{
		{"none", nil, ""},
		{"deny all", []specs.LinuxDeviceCgroup{deny}, ""},
		{"only an allow rule", []specs.LinuxDeviceCgroup{{Allow: true, Type: "b", Major: p(int64(8)), Minor: p(int64(0)), Access: "r"}}, "b 8:0 r"},
		{"major only", []specs.LinuxDeviceCgroup{deny, {Allow: true, Type: "c", Major: p(int64(8)), Access: "wr"}}, "c 8:* rw"},
		{
			"docker's fuse", []specs.LinuxDeviceCgroup{deny, {Type: "c", Major: p(int64(10)), Minor: p(int64(229)), Access: "rwm"}}, "",
		},
		{"type", []specs.LinuxDeviceCgroup{{Type: "x", Access: "r"}}, "!type \"x\""},
		{"access", []specs.LinuxDeviceCgroup{{Type: "c", Access: "q"}}, "!access \"q\""},
		{"number", []specs.LinuxDeviceCgroup{{Type: "c", Major: p(int64(-2)), Access: "r"}}, "!-2"},
		{"allows nothing", []specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: p(int64(1))}}, "!no access"},
		{"too many", make([]specs.LinuxDeviceCgroup, maxDeviceRules+1), "!4097 rules"},
	} {
		l, err := parseDevices(c.rules)
		if part, ok := strings.CutPrefix(c.want, "!"); ok {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %v, want %q", c.name, err, part)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		flat, err := l.flatten()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		var lines []string
		for _, e := range flat[:len(flat)-len(defaultRules())] {
			lines = append(lines, e.String())
		}
		if got := strings.Join(lines, "; "); got != c.want || l.allow {
			t.Errorf("%s: %q, default %v, want %q", c.name, got, l.allow, c.want)
		}
	}
}

// A privileged container's list needs no program at all.
func TestAllowAllNeedsNoProgram(t *testing.T) {
	l, err := parseDevices([]specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}})
	if err != nil || l.denies() {
		t.Errorf("denies %v, %v", l.denies(), err)
	}
	l, err = parseDevices([]specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}, {Type: "b", Access: "w"}})
	if err != nil || !l.denies() {
		t.Errorf("denies %v, %v", l.denies(), err)
	}
}

func TestParseAccess(t *testing.T) {
	for _, test := range []struct {
		access string
		allow  bool
		want   uint8 // 0: an error
	}{
		{"r", true, accRead}, {"mw", true, accWrite | accMknod}, {"", false, accAll}, {"", true, 0}, {"q", false, 0},
		{"rwa", false, 0}, {"rwm", true, accAll}, // other letters are dropped when the configuration is loaded
	} {
		got, err := parseAccess(&specs.LinuxDeviceCgroup{Allow: test.allow, Type: "c", Access: test.access})
		if got != test.want || (err != nil) != (test.want == 0) {
			t.Errorf("parseAccess(%q, allow %v) = %d, %v; want %d", test.access, test.allow, got, err, test.want)
		}
	}
}
