// Package spec loads, defaults and validates config.json, the configuration of the OCI runtime specification, with the
// specification's own Go types. Everything that can be judged without looking at the host is judged here, so that the
// rooms behind it work on values that make sense: [Load] is the door through which every bundle comes.
//
// The decoder is written by hand, straight into the upstream types: one pass over the text with no reflection. It is
// several times faster than encoding/json, above all in a fresh process, and it knows the path of every value, so that
// each error names the property. A test fills every field of the upstream types and fails when the decoder misses one.
package spec

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/jsonr"
)

// Versions of the runtime specification that the package implements. Later versions with the same major number are
// accepted as well, because the specification promises that they are compatible.
const (
	VersionMin = "1.0.0"
	VersionMax = "1.3.0"
)

// ConfigName is the name of the configuration in the root of a bundle.
const ConfigName = "config.json"

// maxConfig limits the size of config.json in bytes. Docker's default is about 60 kB.
const maxConfig = 16 << 20

// Load reads, parses and validates config.json of the bundle directory. The file may be reached by a symbolic link but
// must be regular and at most 16 MiB long. The warnings are sentences about values that are ignored. An error names
// config.json, the path of the property and its value, as in
//
//	config.json: process.rlimits[1].type: wrong rlimit value: RLIMIT_FOO
//
// An error because the file is not there satisfies errors.Is(err, fs.ErrNotExist).
func Load(bundle string) (*specs.Spec, []string, error) {
	data, err := Read(bundle)
	if err != nil {
		return nil, nil, err
	}
	s, warnings, err := Parse(data)
	if err != nil {
		return nil, warnings, fmt.Errorf("%s: %w", ConfigName, err)
	}
	return s, warnings, nil
}

// Read returns the bytes of config.json of the bundle directory, under the same conditions as [Load].
func Read(bundle string) ([]byte, error) { return ReadFile(filepath.Join(bundle, ConfigName)) }

// ReadFile reads a regular file of at most 16 MiB from a directory that another user may write. O_NONBLOCK keeps a FIFO
// from hanging the runtime in open(2).
func ReadFile(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("open %s: not a regular file", name)
	}
	buf := make([]byte, 0, min(fi.Size(), maxConfig)+1)
	for {
		n, err := f.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if len(buf) > maxConfig {
			return nil, fmt.Errorf("read %s: larger than %d MiB", name, maxConfig>>20)
		}
		if errors.Is(err, io.EOF) {
			return buf, nil
		}
		if err != nil {
			return nil, err
		}
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
	}
}

// Parse decodes and validates the text of a config.json; see [Load]. The JSON must be one object in UTF-8 in which no
// object has the same name twice. A property that is null counts as absent, an unknown one is ignored, and so are the
// sections of other platforms (windows, solaris, vm, zos, freebsd) whatever they contain.
func Parse(data []byte) (*specs.Spec, []string, error) {
	d := jsonr.New(string(data), foldName)
	s := new(specs.Spec)
	decodeSpec(d, s)
	if err := d.End(); err != nil {
		return nil, nil, err
	}
	warnings, err := Validate(s)
	if err != nil {
		return nil, warnings, err
	}
	if s.Linux == nil {
		s.Linux = new(specs.Linux) // absent is the same as empty: nothing is isolated
	}
	DropZeroPids(s.Version, s.Linux.Resources)
	return s, warnings, nil
}

// ParseProcess decodes and validates the text of a process document, the value of the property process in config.json.
// It is what `exec --process FILE` reads.
func ParseProcess(data []byte) (*specs.Process, []string, error) {
	d := jsonr.New(string(data), foldName)
	p := new(specs.Process)
	decodeProcess(d, p)
	if err := d.End(); err != nil {
		return nil, nil, err
	}
	warnings, err := ValidateProcess(p)
	if err != nil {
		return nil, warnings, err
	}
	return p, warnings, nil
}

// ParseResources decodes and validates the text of a resources document, the value of linux.resources in config.json.
// It is what `update --resources FILE` reads. Limits that only make sense together (memory and swap) are compared only
// if both are there, because the other one may have been set before.
func ParseResources(data []byte) (*specs.LinuxResources, []string, error) {
	d := jsonr.New(string(data), foldName)
	r := new(specs.LinuxResources)
	decodeResources(d, r)
	if err := d.End(); err != nil {
		return nil, nil, err
	}
	v := validator{}
	v.resources("", r)
	if v.err != nil {
		return nil, v.warnings, v.err
	}
	return r, v.warnings, nil
}
