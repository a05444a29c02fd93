// Package spool makes temporary files without a name, of which nothing is left however the process ends.
package spool

import (
	"fmt"
	"os"
)

// New makes a file in TMPDIR, or in /var/tmp because /tmp is often memory. The caller closes it.
func New() (*os.File, error) {
	dir := os.Getenv("TMPDIR")
	if dir == "" {
		dir = "/var/tmp"
	}
	return In(dir)
}

// In makes a file in dir. The caller closes it.
func In(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".tare-image-")
	if err != nil {
		return nil, fmt.Errorf("make temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("make temporary file: %w", err)
	}
	return f, nil
}
