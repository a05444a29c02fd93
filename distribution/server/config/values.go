package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// filePrefix begins a secret that is in a file of its own.
const filePrefix = "file:"

// hidden is what anybody sees of a secret.
const hidden = "(hidden)"

// Secret is a password or key, or "file:" and the file that has it. It is printed as "(hidden)" whatever prints it.
type Secret string

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString is for %#v.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// MarshalText is for every encoder.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// Duration is a time like "90s", "36h" or "14d".
type Duration time.Duration

// UnmarshalText reads what time.ParseDuration does, and whole days.
func (d *Duration) UnmarshalText(text []byte) error {
	if days, ok := strings.CutSuffix(string(text), "d"); ok {
		n, err := strconv.ParseInt(days, 10, 32)
		if err != nil || n > 36500 || n < 0 {
			return fmt.Errorf("%q is not a number of days", text)
		}
		*d = Duration(n) * Duration(24*time.Hour)
		return nil
	}
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a time such as 90s, 10m, 36h or 14d", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText is the reverse.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Size is a number of bytes like 4096, "64KiB", "4 MiB" or "10GB".
type Size int64

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	digits := strings.TrimRight(string(text), "KMGTiB ")
	unit := strings.TrimSpace(string(text)[len(digits):])
	factor, ok := map[string]int64{"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || n < 0 || n > math.MaxInt64/factor {
		return fmt.Errorf("%q is not a size such as 4096, 64KiB or 10GB", text)
	}
	*s = Size(n * factor)
	return nil
}

// MarshalText writes bytes.
func (s Size) MarshalText() ([]byte, error) { return strconv.AppendInt(nil, int64(s), 10), nil }
