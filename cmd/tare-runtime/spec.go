package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/flags"
	"github.com/tare-oci/tare/runtime/spec"
)

func specCommand(s *flags.Set) action {
	bundle, rootless := "", false
	s.String(&bundle, "bundle,b", "DIR", "directory to write config.json into (default: the working directory)")
	s.Bool(&rootless, "rootless", "for a user who is not root")
	return func(*env) (int, error) {
		config := spec.Default()
		if !unifiedCgroups() { // as runc, whose template people and engines know
			spec.DropNamespace(config, specs.CgroupNamespace)
		}
		if rootless {
			spec.ToRootless(config, uint32(os.Geteuid()), uint32(os.Getegid()))
		}
		data, err := json.MarshalIndent(config, "", "\t")
		if err != nil {
			return 0, fmt.Errorf("encode config.json: %w", err)
		}
		return 0, writeNew(filepath.Join(bundle, spec.ConfigName), data)
	}
}

// unifiedCgroups tells whether cgroups of version 2 are all that this machine has.
func unifiedCgroups() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// writeNew writes a file that must not exist yet.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("File %s exists. Remove it first", path) //nolint:staticcheck // the text that callers know
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		os.Remove(path)
	}
	return err
}
