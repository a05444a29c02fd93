package seccomp

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// The columns of the numbers table. MIPS and MIPSEL, and so on, share one.
const (
	colX8664 = iota
	colX86
	colX32
	colARM
	colAARCH64
	colMIPS
	colMIPS64
	colMIPS64N32
	colPPC
	colPPC64
	colS390
	colS390X
	colRISCV64
	colLOONGARCH64
	numColumns
	noColumn = -1
)

// x32Bit marks the x32 calls of an x86-64 kernel (__X32_SYSCALL_BIT); they have x86-64's audit token.
const x32Bit = 0x40000000

// ARM's private calls (__ARM_NR_BASE) lie far above the others; the table marks them by armPrivateMark.
const (
	armPrivateBase = 0x0f0000
	armPrivateMark = 0xf000
)

// arch is one of the specification's architectures.
type arch struct {
	name   specs.Arch
	family string // the architectures that one kernel can run have the same
	token  uint32 // AUDIT_ARCH_* of linux/audit.h, which the kernel puts into seccomp_data.arch
	column int    // of the numbers table
	base   uint32 // added to a number of the table
	narrow bool   // 32 bits of the arguments are compared
}

// archs is sorted by name. The five without a family belong to machines that Go does not run on; no kernel that runs this
// program makes their calls, so that a profile may name them but gets no code for them.
var archs = [...]arch{
	{"SCMP_ARCH_AARCH64", "arm", 0xc00000b7, colAARCH64, 0, false},
	{"SCMP_ARCH_ARM", "arm", 0x40000028, colARM, 0, true},
	{"SCMP_ARCH_LOONGARCH64", "loong", 0xc0000102, colLOONGARCH64, 0, false},
	{"SCMP_ARCH_M68K", "", 0x00000004, noColumn, 0, true},
	{"SCMP_ARCH_MIPS", "mips", 0x00000008, colMIPS, 4000, true},
	{"SCMP_ARCH_MIPS64", "mips", 0x80000008, colMIPS64, 5000, false},
	{"SCMP_ARCH_MIPS64N32", "mips", 0xa0000008, colMIPS64N32, 6000, true},
	{"SCMP_ARCH_MIPSEL", "mipsel", 0x40000008, colMIPS, 4000, true},
	{"SCMP_ARCH_MIPSEL64", "mipsel", 0xc0000008, colMIPS64, 5000, false},
	{"SCMP_ARCH_MIPSEL64N32", "mipsel", 0xe0000008, colMIPS64N32, 6000, true},
	{"SCMP_ARCH_PARISC", "", 0x0000000f, noColumn, 0, true},
	{"SCMP_ARCH_PARISC64", "", 0x8000000f, noColumn, 0, false},
	{"SCMP_ARCH_PPC", "ppc", 0x00000014, colPPC, 0, true},
	{"SCMP_ARCH_PPC64", "ppc", 0x80000015, colPPC64, 0, false},
	{"SCMP_ARCH_PPC64LE", "ppcle", 0xc0000015, colPPC64, 0, false},
	{"SCMP_ARCH_RISCV64", "riscv", 0xc00000f3, colRISCV64, 0, false},
	{"SCMP_ARCH_S390", "s390", 0x00000016, colS390, 0, true},
	{"SCMP_ARCH_S390X", "s390", 0x80000016, colS390X, 0, false},
	{"SCMP_ARCH_SH", "", 0x4000002a, noColumn, 0, true},
	{"SCMP_ARCH_SHEB", "", 0x0000002a, noColumn, 0, true},
	{"SCMP_ARCH_X32", "x86", 0xc000003e, colX32, x32Bit, true},
	{"SCMP_ARCH_X86", "x86", 0x40000003, colX86, 0, true},
	{"SCMP_ARCH_X86_64", "x86", 0xc000003e, colX8664, 0, false},
}

// machine is what a GOARCH says about the kernel.
type machine struct {
	native    specs.Arch
	bigEndian bool
}

func machineOf(goarch string) (machine, error) {
	switch goarch {
	case "386":
		return machine{"SCMP_ARCH_X86", false}, nil
	case "amd64":
		return machine{"SCMP_ARCH_X86_64", false}, nil
	case "arm":
		return machine{"SCMP_ARCH_ARM", false}, nil
	case "arm64":
		return machine{"SCMP_ARCH_AARCH64", false}, nil
	case "loong64":
		return machine{"SCMP_ARCH_LOONGARCH64", false}, nil
	case "mips":
		return machine{"SCMP_ARCH_MIPS", true}, nil
	case "mipsle":
		return machine{"SCMP_ARCH_MIPSEL", false}, nil
	case "mips64":
		return machine{"SCMP_ARCH_MIPS64", true}, nil
	case "mips64le":
		return machine{"SCMP_ARCH_MIPSEL64", false}, nil
	case "ppc64":
		return machine{"SCMP_ARCH_PPC64", true}, nil
	case "ppc64le":
		return machine{"SCMP_ARCH_PPC64LE", false}, nil
	case "riscv64":
		return machine{"SCMP_ARCH_RISCV64", false}, nil
	case "s390x":
		return machine{"SCMP_ARCH_S390X", true}, nil
	}
	return machine{}, fmt.Errorf("no seccomp filter for machine %q", goarch)
}

// enosys is the machine's ENOSYS.
func (m machine) enosys() uint32 {
	if strings.HasPrefix(string(m.native), "SCMP_ARCH_MIPS") {
		return enosysMIPS
	}
	return enosys
}

// findArch returns nil for a name that the specification does not have.
func findArch(name specs.Arch) *arch {
	i, ok := slices.BinarySearchFunc(archs[:], name, func(a arch, n specs.Arch) int { return strings.Compare(string(a.name), string(n)) })
	if !ok {
		return nil
	}
	return &archs[i]
}

// selectArchs returns the architectures that the program needs code for: the machine's own, then those of the profile that
// the machine's kernel can run, each once.
func selectArchs(m machine, list []specs.Arch) []*arch {
	native := findArch(m.native)
	selected := []*arch{native}
	for _, name := range list {
		a := findArch(name)
		if a.family == native.family && !slices.Contains(selected, a) {
			selected = append(selected, a)
		}
	}
	return selected
}

// number returns the number of the table's i-th name.
func (a *arch) number(i int) (uint32, bool) {
	n := numbers[a.column][i]
	switch {
	case n == absent:
		return 0, false
	case a.column == colARM && n >= armPrivateMark:
		return armPrivateBase | uint32(n-armPrivateMark), true
	}
	return a.base + uint32(n), true
}

// isPrivate tells ARM's private calls from the others.
func (a *arch) isPrivate(nr uint32) bool { return a.column == colARM && nr >= armPrivateBase }

// lookup returns the index of a name in the tables, or -1.
func lookup(name string) int {
	lo, hi := 0, numNames
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		switch c := strings.Compare(nameAt(mid), name); {
		case c == 0:
			return mid
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return -1
}

func nameAt(i int) string {
	start := uint16(0)
	if i > 0 {
		start = nameEnds[i-1]
	}
	return nameBlob[start:nameEnds[i]]
}
