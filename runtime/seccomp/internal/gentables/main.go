// Command gentables writes runtime/seccomp/table_gen.go: the numbers of all Linux system calls on all architectures.
//
// Its facts are the kernel's own headers, taken from two places: golang.org/x/sys/unix of the module cache, which is made
// from a recent kernel, and, for the three architectures that Go does not know, Debian's packages
// linux-libc-dev-{x32,mipsn32,s390x}-cross. These are older; but since Linux 5.0 a new call has the same number
// everywhere, so the calls after 450 come from arm64's list. To run it in the repository's root:
//
//	mkdir /tmp/h && cd /tmp/h && for a in x32 mipsn32 s390x; do apt-get download linux-libc-dev-$a-cross; done
//	for f in *.deb; do dpkg -x $f .; done; cd -
//	go run ./runtime/seccomp/internal/gentables -headers /tmp/h/usr \
//	    -xsys $(go list -m -f '{{.Dir}}' golang.org/x/sys)/unix -o runtime/seccomp/table_gen.go
package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"go/format"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// source says where an architecture's numbers come from and what is added to the number in the header; the order is the
// order of the columns, see the constants in arch.go.
type source struct {
	column, xsys, header string
	base                 int // of the architecture's numbers in the kernel; the table holds the difference
}

var sources = []source{
	{column: "colX8664", xsys: "amd64"},
	{column: "colX86", xsys: "386"},
	{column: "colX32", header: "x86_64-linux-gnux32/include/asm/unistd_x32.h"},
	{column: "colARM", xsys: "arm"},
	{column: "colAARCH64", xsys: "arm64"},
	{column: "colMIPS", xsys: "mips", base: 4000},
	{column: "colMIPS64", xsys: "mips64", base: 5000},
	{column: "colMIPS64N32", header: "mips64-linux-gnuabin32/include/asm/unistd_n32.h"},
	{column: "colPPC", xsys: "ppc"},
	{column: "colPPC64", xsys: "ppc64"},
	{column: "colS390", header: "s390x-linux-gnu/include/asm/unistd_32.h"},
	{column: "colS390X", xsys: "s390x"},
	{column: "colRISCV64", xsys: "riscv64"},
	{column: "colLOONGARCH64", xsys: "loong64"},
}

// armPrivate are arch/arm/include/uapi/asm/unistd.h's __ARM_NR_* less 0xf0000; the table marks them by 0xf000.
var armPrivate = map[string]int{"breakpoint": 1, "cacheflush": 2, "usr26": 3, "usr32": 4, "set_tls": 5, "get_tls": 6}

const (
	absent    = 0xffff
	firstSame = 451 // from here on a number means the same call everywhere
)

func main() {
	xsys := flag.String("xsys", "", "directory of golang.org/x/sys/unix")
	headers := flag.String("headers", "", "directory usr of the unpacked header packages")
	out := flag.String("o", "", "file to write")
	flag.Parse()
	if err := run(*xsys, *headers, *out); err != nil {
		log.Fatal(err)
	}
}

func run(xsys, headers, out string) error {
	common, err := readXsys(filepath.Join(xsys, "zsysnum_linux_arm64.go"), 0)
	if err != nil {
		return err
	}
	tables := make([]map[string]int, len(sources))
	names := map[string]bool{}
	for i, s := range sources {
		if s.xsys != "" {
			tables[i], err = readXsys(filepath.Join(xsys, "zsysnum_linux_"+s.xsys+".go"), s.base)
		} else {
			tables[i], err = readHeader(filepath.Join(headers, s.header))
			for name, nr := range common {
				if nr >= firstSame && err == nil {
					tables[i][name] = nr
				}
			}
		}
		if err != nil {
			return err
		}
		if s.column == "colARM" {
			for name, nr := range armPrivate {
				tables[i][name] = 0xf000 | nr
			}
			tables[i]["sync_file_range2"] = tables[i]["arm_sync_file_range"] // the same macro in the header
		}
		for name, nr := range tables[i] {
			if nr < 0 || nr >= absent {
				return fmt.Errorf("%s: number %d of %s does not fit", s.column, nr, name)
			}
			names[name] = true
		}
	}
	return write(out, names, tables)
}

// readXsys reads lines such as "SYS_READ = 0".
func readXsys(path string, base int) (map[string]int, error) {
	return readLines(path, func(f []string) (string, int, bool) {
		if len(f) != 3 || f[1] != "=" || !strings.HasPrefix(f[0], "SYS_") {
			return "", 0, false
		}
		nr, err := strconv.Atoi(f[2])
		return strings.ToLower(f[0][len("SYS_"):]), nr - base, err == nil && f[0] != "SYS_ARCH_SPECIFIC_SYSCALL"
	})
}

// readHeader reads lines such as "#define __NR_read 3" and "#define __NR_read (__NR_Linux + 0)".
func readHeader(path string) (map[string]int, error) {
	return readLines(path, func(f []string) (string, int, bool) {
		if len(f) < 3 || f[0] != "#define" || !strings.HasPrefix(f[1], "__NR_") {
			return "", 0, false
		}
		nr, err := strconv.Atoi(strings.TrimSuffix(f[len(f)-1], ")"))
		return f[1][len("__NR_"):], nr, err == nil
	})
}

func readLines(path string, parse func(fields []string) (string, int, bool)) (map[string]int, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m := map[string]int{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if name, nr, ok := parse(strings.Fields(sc.Text())); ok {
			m[name] = nr
		}
	}
	if len(m) < 200 {
		return nil, fmt.Errorf("%s: only %d system calls", path, len(m))
	}
	return m, nil
}

func write(out string, set map[string]bool, tables []map[string]int) error {
	var names []string
	for name := range set {
		names = append(names, name)
	}
	slices.Sort(names)
	var b bytes.Buffer
	fmt.Fprintf(&b, "// Code generated by internal/gentables; DO NOT EDIT.\n\npackage seccomp\n\n")
	fmt.Fprintf(&b, "const (\nnumNames = %d\nabsent = %#x\n)\n\n", len(names), absent)
	fmt.Fprintf(&b, "// nameBlob holds the names in ascending order, nameEnds where each ends.\nconst nameBlob = \"\" +\n")
	for i := 0; i < len(names); i += 8 {
		end := min(i+8, len(names))
		plus := " +"
		if end == len(names) {
			plus = ""
		}
		fmt.Fprintf(&b, "%q%s\n", strings.Join(names[i:end], ""), plus)
	}
	fmt.Fprintf(&b, "\nvar nameEnds = [numNames]uint16{")
	for i, n, end := 0, "", 0; i < len(names); i++ {
		n = names[i]
		end += len(n)
		newline(&b, i)
		fmt.Fprintf(&b, "%d,", end)
	}
	fmt.Fprintf(&b, "\n}\n\n// numbers holds a column for each table: the number of each name in it, less the table's base.\nvar numbers = [numColumns][numNames]uint16{\n")
	for i, s := range sources {
		fmt.Fprintf(&b, "%s: {", s.column)
		for j, n := range names {
			newline(&b, j)
			if nr, ok := tables[i][n]; ok {
				fmt.Fprintf(&b, "%d,", nr)
			} else {
				fmt.Fprintf(&b, "absent,")
			}
		}
		fmt.Fprintf(&b, "\n},\n")
	}
	fmt.Fprintf(&b, "}\n")
	src, err := format.Source(b.Bytes())
	if err != nil {
		return err
	}
	return os.WriteFile(out, src, 0o644)
}

func newline(b *bytes.Buffer, i int) {
	if i%32 == 0 {
		b.WriteByte('\n')
	}
}
