package spec

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// FuzzParse checks that what is accepted is JSON for encoding/json too and stays the same when written and read again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(base))
	if data, err := json.Marshal(Default()); err == nil {
		f.Add(data)
	}
	f.Add(dockerLike(f, 8))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, _, err := Parse(data)
		if err != nil {
			if got != nil || err.Error() == "" {
				t.Fatalf("error without text or with a result: %v", err)
			}
			return
		}
		if !json.Valid(data) {
			t.Fatalf("accepted invalid JSON: %q", data)
		}
		again, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		second, _, err := Parse(again)
		if err != nil {
			t.Fatalf("own output refused: %v\n%s", err, again)
		}
		if third, _ := json.Marshal(second); string(third) != string(again) {
			t.Fatalf("changes when written and read:\n%s\n%s", again, third)
		}
	})
}

// dockerLike makes a configuration of the size and form of Docker's default, with n groups of system calls.
func dockerLike(tb testing.TB, n int) []byte {
	tb.Helper()
	s := Default()
	for i := range 30 {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: fmt.Sprintf("/data/%d", i), Type: "bind", Source: "/src", Options: []string{"rbind", "rprivate"}})
	}
	sc := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}}
	for i := range n {
		call := specs.LinuxSyscall{Action: specs.ActAllow}
		for j := range 40 {
			call.Names = append(call.Names, fmt.Sprintf("system_call_%d_%d", i, j))
		}
		call.Args = []specs.LinuxSeccompArg{{Index: 1, Value: math.MaxUint64, Op: specs.OpMaskedEqual}}
		sc.Syscalls = append(sc.Syscalls, call)
	}
	s.Linux.Seccomp = sc
	data, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func BenchmarkParse(b *testing.B) {
	data := dockerLike(b, 25)
	b.Run("tare", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := Parse(data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for b.Loop() {
			if err := json.Unmarshal(data, new(specs.Spec)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
