package seccomp

import (
	"encoding/json"
	"math/rand/v2"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// FuzzCompile feeds Compile with profiles as they come from config.json. What it accepts must pass the kernel's checks and
// answer as the naive evaluator does.
func FuzzCompile(f *testing.F) {
	for seed := range uint64(40) {
		f.Add(must(json.Marshal(randomProfile(rand.New(rand.NewPCG(seed, 11))))), uint8(seed), uint32(seed), seed, uint64(38))
	}
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","flags":[],"architectures":["SCMP_ARCH_X32"],"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`),
		uint8(1), uint32(x32Bit), uint64(0), uint64(0))
	f.Fuzz(func(t *testing.T, profile []byte, machine uint8, nr uint32, x, y uint64) {
		var s specs.LinuxSeccomp
		if json.Unmarshal(profile, &s) != nil {
			return
		}
		goarch := goarchs[int(machine)%len(goarchs)]
		filter, err := Compile(&s, goarch)
		if err != nil {
			return
		}
		if err := check(filter.Program); err != nil {
			t.Fatal(err)
		}
		numbers := append(numbersToTry(&s, archs[machine%uint8(len(archs))].token, false), nr)
		for _, token := range []uint32{findArch(must(machineOf(goarch)).native).token, archs[machine%uint8(len(archs))].token} {
			for _, n := range numbers[max(0, len(numbers)-64):] {
				d := data{nr: n, arch: token, args: [6]uint64{x, y, x, y, x, y}}
				got, _ := run(filter.Program, &d, filter.machine.bigEndian)
				if want := naive(&s, goarch, token, n)(&d); got != want {
					t.Fatalf("%s %+v: program says %#x, naive %#x", goarch, d, got, want)
				}
			}
		}
	})
}
