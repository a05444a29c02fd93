package rdt

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// schemata are the lines to write, in the order of the specification. With memBwSchema the lines for memory bandwidth in
// l3CacheSchema are left out.
func schemata(r *specs.LinuxIntelRdt) []string {
	var lines []string
	for l := range strings.SplitSeq(r.L3CacheSchema, "\n") {
		if l = strings.TrimSpace(l); l != "" && (r.MemBwSchema == "" || !strings.HasPrefix(l, "MB:")) {
			lines = append(lines, l)
		}
	}
	if r.MemBwSchema != "" {
		lines = append(lines, r.MemBwSchema)
	}
	return append(lines, r.Schemata...)
}

// resource is the part of a line before the colon.
func resource(line string) string {
	name, _, _ := strings.Cut(line, ":")
	return strings.TrimSpace(name)
}

func (f *FS) read(g *Group) ([]string, error) {
	data, err := os.ReadFile(filepath.Join(g.Dir, "schemata"))
	if err != nil {
		return nil, fmt.Errorf("read schemata: %w", err)
	}
	var lines []string
	for l := range strings.Lines(string(data)) {
		if l = strings.TrimSpace(l); l != "" {
			lines = append(lines, l)
		}
	}
	return lines, nil
}

func (f *FS) write(g *Group, lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	if err := writeFile(filepath.Join(g.Dir, "schemata"), strings.Join(lines, "\n")+"\n"); err != nil {
		return fmt.Errorf("write schemata %q: %w%s", strings.Join(lines, " "), err, f.reason())
	}
	return nil
}

// compare reports the first domain of a line for which the class of service has another value than the line. What the lines do not
// name may be anything.
func (f *FS) compare(g *Group, lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	has, err := f.read(g)
	if err != nil {
		return err
	}
	values := map[string]string{}
	for _, l := range has {
		domains(l, func(name, value string) bool { values[name] = value; return true })
	}
	for _, l := range lines {
		var mismatch error
		ok := domains(l, func(name, value string) bool {
			if now, ok := values[name]; !ok || now != value {
				mismatch = fmt.Errorf("the class of service %s exists with other values: %s=%s, the configuration has %q", g.Dir, name, now, l)
			}
			return mismatch == nil
		})
		if mismatch != nil {
			return mismatch
		}
		if !ok {
			return fmt.Errorf("schema %q is not of the form RESOURCE:ID=VALUE;ID=VALUE", l)
		}
	}
	return nil
}

// domains calls each with "L3:0" and its value, without leading zeros, for every domain of a line until it returns false. It returns
// false for a line that is not of the form "L3:0=ff;1=f0".
func domains(line string, each func(name, value string) bool) bool {
	name, list, ok := strings.Cut(line, ":")
	if !ok {
		return false
	}
	for d := range strings.SplitSeq(list, ";") {
		id, value, ok := strings.Cut(d, "=")
		if !ok {
			return false
		}
		if !each(strings.TrimSpace(name)+":"+canonical(id), canonical(value)) {
			break
		}
	}
	return true
}

// canonical writes a number as it is compared: in lower case, without leading zeros.
func canonical(s string) string {
	s = strings.TrimLeft(strings.ToLower(strings.TrimSpace(s)), "0")
	if s == "" {
		return "0"
	}
	return s
}
