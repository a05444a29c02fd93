package manifest

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/cpu"
)

// Platform is the kind of machine that an image is wanted for, in normal form: what ParsePlatform and Host return.
type Platform struct {
	OS, Architecture, Variant string

	// Fallbacks also accepts what such a processor runs in a compatibility mode: 386 on amd64, arm on arm64.
	Fallbacks bool
}

// String returns OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT.
func (p Platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// ParsePlatform parses OS/ARCHITECTURE[/VARIANT], or ARCHITECTURE[/VARIANT] with the host's os. Other tools' names for
// architectures are understood: x86_64, aarch64, armhf, armel, i386. A missing variant is the oldest common one.
func ParsePlatform(s string) (Platform, error) {
	parts := strings.Split(s, "/")
	for _, unsafe := range parts {
		if unsafe == "" || len(unsafe) > 64 || strings.ContainsFunc(unsafe, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r)
		}) {
			return Platform{}, fmt.Errorf("platform %.200q is malformed: want OS/ARCHITECTURE[/VARIANT], as in linux/arm64/v8", s)
		}
	}
	if p := normalize("", parts[0], ""); knownArchitecture(p.Architecture) {
		parts = append([]string{runtime.GOOS}, parts...)
	}
	switch len(parts) {
	case 2:
		return normalize(parts[0], parts[1], ""), nil
	case 3:
		return normalize(parts[0], parts[1], parts[2]), nil
	}
	return Platform{}, fmt.Errorf("platform %.200q is malformed: want OS/ARCHITECTURE[/VARIANT], as in linux/arm64/v8", s)
}

// Host returns the platform of this process, with the variant that the processor has and with Fallbacks.
func Host() Platform {
	p := normalize(runtime.GOOS, runtime.GOARCH, hostVariant())
	p.Fallbacks = true
	return p
}

// hostVariant tells the processor's generation from a few of its features that came together: x86-64 psABI levels, arm
// architecture versions.
func hostVariant() string {
	switch x, a := cpu.X86, cpu.ARM; runtime.GOARCH {
	case "amd64":
		switch {
		case !(x.HasCX16 && x.HasPOPCNT && x.HasSSE3 && x.HasSSSE3 && x.HasSSE41 && x.HasSSE42):
			return "v1"
		case !(x.HasAVX && x.HasAVX2 && x.HasBMI1 && x.HasBMI2 && x.HasFMA && x.HasOSXSAVE):
			return "v2"
		case !(x.HasAVX512F && x.HasAVX512BW && x.HasAVX512CD && x.HasAVX512DQ && x.HasAVX512VL):
			return "v3"
		}
		return "v4"
	case "arm":
		switch {
		case a.HasCRC32 || a.HasAES:
			return "v8"
		case a.HasVFPv3 || a.HasVFPv4 || a.HasNEON:
			return "v7"
		}
		return "v6"
	}
	return ""
}

// normalize maps the names in use for one thing to one name. Go's names are the specification's.
func normalize(os, arch, variant string) Platform {
	p := Platform{OS: strings.ToLower(os), Architecture: strings.ToLower(arch), Variant: strings.ToLower(variant)}
	if p.OS == "macos" {
		p.OS = "darwin"
	}
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "i386", "i486", "i586", "i686":
		p.Architecture = "386"
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	}
	if n := strings.TrimLeft(p.Variant, "0123456789"); n == "" && p.Variant != "" {
		p.Variant = "v" + p.Variant // arm64/8
	}
	switch {
	case p.Architecture == "amd64" && p.Variant == "v1", p.Architecture == "arm64" && (p.Variant == "v8" || p.Variant == "v8.0"),
		p.Architecture == "riscv64" && p.Variant == "rva20u64":
		p.Variant = ""
	case p.Architecture == "arm" && p.Variant == "":
		p.Variant = "v7"
	}
	return p
}

func knownArchitecture(arch string) bool {
	switch arch {
	case "amd64", "386", "arm", "arm64", "riscv64", "ppc64le", "s390x", "ppc64", "loong64", "mips", "mipsle", "mips64", "mips64le":
		return true
	}
	return false
}

// Rank tells how well an image for os, arch and variant runs on p: 0 is best, negative is not at all. The variant of the
// image may be older than that of p, never newer.
func (p Platform) Rank(os, arch, variant string) int {
	image := normalize(os, arch, variant)
	if image.OS != p.OS {
		return -1
	}
	const otherArchitecture = 1000
	switch {
	case image.Architecture == p.Architecture:
		if image.Variant == p.Variant {
			return 0
		}
		want, ok1 := level(p)
		have, ok2 := level(image)
		if !ok1 || !ok2 || have > want {
			return -1
		}
		return want - have
	case p.Fallbacks && p.Architecture == "amd64" && image.Architecture == "386":
		return otherArchitecture
	case p.Fallbacks && p.Architecture == "arm64" && image.Architecture == "arm":
		if n, ok := level(image); ok && n <= 800 {
			return otherArchitecture + 800 - n
		}
	}
	return -1
}

// level orders the variants of an architecture that are supersets of each other: v8.2 is 802. False where they are not known
// to be.
func level(p Platform) (int, bool) {
	variant := p.Variant
	switch {
	case p.Architecture == "amd64" && variant == "":
		variant = "v1"
	case p.Architecture == "arm64" && variant == "":
		variant = "v8"
	}
	number, isV := strings.CutPrefix(variant, "v")
	switch p.Architecture {
	case "amd64", "arm", "arm64":
	case "ppc64le":
		number, isV = strings.CutPrefix(variant, "power")
	default:
		return 0, false
	}
	major, minor, dot := strings.Cut(number, ".")
	a, err := strconv.ParseUint(major, 10, 8)
	if !isV || err != nil {
		return 0, false
	}
	b, err := strconv.ParseUint(minor, 10, 6)
	if dot && err != nil {
		return 0, false
	}
	if p.Architecture == "arm64" && a == 9 {
		return 805 + int(b), true // Armv9.N holds Armv8.(5+N)
	}
	return int(a)*100 + int(b), true
}

// Select returns the entries of an index that fit p, best first, entries of equal rank in the index's order. Entries without
// a platform come last: only the config tells what they are for. Attestations, signatures and whatever else is not an image
// or an index are left out, as are entries for unknown/unknown. Without any entry left the error lists what there is.
func Select(entries []v1.Descriptor, p Platform) ([]v1.Descriptor, error) {
	type ranked struct {
		d    v1.Descriptor
		rank int
	}
	var fits []ranked
	for _, d := range entries {
		if !IsImage(d) {
			continue
		}
		rank := 1 << 30
		if d.Platform != nil {
			if rank = p.Rank(d.Platform.OS, d.Platform.Architecture, d.Platform.Variant); rank < 0 {
				continue
			}
		}
		fits = append(fits, ranked{d, rank})
	}
	if len(fits) == 0 {
		return nil, NoPlatform(p, Available(entries))
	}
	slices.SortStableFunc(fits, func(a, b ranked) int { return a.rank - b.rank })
	best := make([]v1.Descriptor, len(fits))
	for i, f := range fits {
		best[i] = f.d
	}
	return best, nil
}

// Available returns the platforms that an index's entries for images name.
func Available(entries []v1.Descriptor) []string {
	var available []string
	for _, d := range entries {
		if IsImage(d) && d.Platform != nil {
			available = append(available, normalize(d.Platform.OS, d.Platform.Architecture, d.Platform.Variant).String())
		}
	}
	return available
}

// IsImage tells whether an index's entry can lead to a container image: it is a manifest or an index, not for the platform
// unknown/unknown, not marked as another entry's attestation, and not of another artifact type.
func IsImage(d v1.Descriptor) bool {
	if !IsIndex(d.MediaType) && !IsManifest(d.MediaType) || d.ArtifactType != "" && !IsConfig(d.ArtifactType) {
		return false
	}
	if _, ok := d.Annotations["vnd.docker.reference.type"]; ok { // BuildKit's attestation-manifest
		return false
	}
	return d.Platform == nil || d.Platform.OS != "unknown" && d.Platform.Architecture != "unknown"
}

// NoPlatform returns the error for an image that has no content for p, only for available.
func NoPlatform(p Platform, available []string) error {
	const shown = 20
	more := ""
	switch n := len(available); {
	case n == 0:
		return fmt.Errorf("no image for platform %s: there is no image for any platform", p)
	case n > shown:
		available, more = available[:shown], fmt.Sprintf(" and %d more", n-shown)
	}
	list := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.Join(available, ", "))
	return fmt.Errorf("no image for platform %s: available are %.1000s%s", p, list, more)
}
