package systemd

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tare-oci/tare/internal/dbus"
)

// Property is a property of a unit.
type Property struct {
	Name  string
	Value dbus.Value
}

// list is properties as calls take them: a(sv).
func list(properties []Property) dbus.Value {
	a := dbus.Array("(sv)")
	for _, p := range properties {
		a.Items = append(a.Items, dbus.Struct(dbus.String(p.Name), dbus.Variant(p.Value)))
	}
	return a
}

// Base are the properties that every container's scope has, before what asked adds or changes. v2: the host has cgroup2 alone.
func Base(id string, v2 bool, asked []Property) []Property {
	io := "BlockIOAccounting"
	if v2 {
		io = "IOAccounting"
	}
	base := []Property{
		{"Description", dbus.String("container " + id)},
		{"Delegate", dbus.Bool(true)}, // the container and this runtime write below
		{"MemoryAccounting", dbus.Bool(true)},
		{"CPUAccounting", dbus.Bool(true)},
		{io, dbus.Bool(true)},
		{"TasksAccounting", dbus.Bool(true)},
		{"DefaultDependencies", dbus.Bool(false)},
		{"CollectMode", dbus.String("inactive-or-failed")}, // a scope that failed leaves no unit behind
	}
	base = slices.DeleteFunc(base, func(p Property) bool {
		return slices.ContainsFunc(asked, func(a Property) bool { return a.Name == p.Name })
	})
	return append(base, asked...)
}

// AnnotationPrefix begins the names of annotations whose values are properties of the unit.
const AnnotationPrefix = "org.systemd.property."

// Annotated reads the properties that annotations ask for, in the order of their names: the value is in GVariant's text form, and a time
// in seconds, "TimeoutStopSec", is given as systemd takes it, "TimeoutStopUSec". What this runtime decides, and what would execute
// something, is refused.
func Annotated(annotations map[string]string) ([]Property, error) {
	var out []Property
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		name, ok := strings.CutPrefix(key, AnnotationPrefix)
		if !ok {
			continue
		}
		if err := checkProperty(name); err != nil {
			return nil, fmt.Errorf("annotation %s name incorrect: %w", clip(key), err)
		}
		value, err := dbus.Parse(annotations[key])
		if short, ok := strings.CutSuffix(name, "Sec"); err == nil && ok && short != "" && short[len(short)-1] >= 'a' {
			name = short + "USec"
			value, err = value.Seconds()
		}
		if err != nil {
			return nil, fmt.Errorf("annotation %s=%s value parse error: %w", key, clip(annotations[key]), err)
		}
		out = append(out, Property{name, value})
	}
	return out, nil
}

// checkProperty accepts what can be the name of a property, apart from those that are not the configuration's to set.
func checkProperty(name string) error {
	if len(name) < 3 {
		return errors.New("too short")
	}
	for i := range len(name) {
		if c := name[i] | 0x20; c < 'a' || c > 'z' {
			return errors.New("contains non-alphabetic character")
		}
	}
	switch {
	case strings.HasPrefix(name, "Exec"):
		return errors.New("a scope executes nothing")
	case slices.Contains([]string{"PIDs", "PIDFDs", "Slice", "Delegate", "DelegateControllers", "DelegateSubgroup", "DevicePolicy", "DeviceAllow",
		"BPFProgram", "Controller"}, name):
		return errors.New("the runtime sets it itself")
	}
	return nil
}
