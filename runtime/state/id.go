package state

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// maxID is the longest name that a directory may have (NAME_MAX).
const maxID = 255

// emptyID is an [ErrInvalidID] in runc's words.
type emptyID struct{}

func (emptyID) Error() string        { return "container id cannot be empty" }
func (emptyID) Is(target error) bool { return target == ErrInvalidID }

// CheckID returns an error unless id is of letters, digits and "_+.-", and a possible name of a directory.
func CheckID(id string) error {
	if id == "" {
		return emptyID{}
	}
	if id == "." || id == ".." {
		return fmt.Errorf("%w: %q", ErrInvalidID, id)
	}
	if len(id) > maxID {
		return fmt.Errorf("%w: %d bytes, more than %d", ErrInvalidID, len(id), maxID)
	}
	for i := 0; i < len(id); i++ {
		c := id[i]
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '+' || c == '.' || c == '-'
		if !ok {
			return fmt.Errorf("%w: %q", ErrInvalidID, id)
		}
	}
	return nil
}

// DefaultRoot returns where containers are kept when the caller does not say: /run/tare, and for a user who is not root, the
// directory tare below xdgRuntimeDir ($XDG_RUNTIME_DIR) unless that is empty.
func DefaultRoot(uid int, xdgRuntimeDir string) string {
	if uid != 0 && xdgRuntimeDir != "" {
		return filepath.Join(xdgRuntimeDir, "tare")
	}
	return "/run/tare"
}

// MakeRootless makes the default root of a user who is not root. It has the sticky bit: the base directory specification
// lets a cleaner remove what is old below $XDG_RUNTIME_DIR and has no such bit.
func MakeRootless(root string) error {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	if err := os.Chmod(root, 0o700|os.ModeSticky); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	return nil
}

// userName looks the name of uid up in /etc/passwd; its number stands for an unknown one.
func userName(uid uint32) string {
	number := strconv.FormatUint(uint64(uid), 10)
	data, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return number
	}
	for line := range bytes.Lines(data) {
		f := bytes.SplitN(line, []byte(":"), 4)
		if len(f) == 4 && string(f[2]) == number {
			return string(f[0])
		}
	}
	return number
}
