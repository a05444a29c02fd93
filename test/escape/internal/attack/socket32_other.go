//go:build !amd64

package attack

import "errors"

// socket32 is for amd64, where a 32-bit entry is open to every process.
func socket32(string) error { return errors.New("there is no 32-bit entry") }
