package spec

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// sigRTMin is the first real-time signal as glibc and musl users know it: the C library keeps the two before it.
const sigRTMin = 34

// ParseSignal returns the signal for a number from 0, which is none, or for a name with or without the prefix SIG in upper or lower
// case: "15", "TERM", "sigterm", "RTMIN+3", "SIGRTMAX-1". The old names CLD, IOT and POLL are known too.
func ParseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 0 || n > sigMax {
			return 0, fmt.Errorf("unknown signal %s", quote(s))
		}
		return syscall.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	switch name {
	case "CLD":
		name = "CHLD"
	case "IOT":
		name = "ABRT"
	case "POLL":
		name = "IO"
	}
	if i, ok := wordIndex(signalNames, name); ok {
		return syscall.Signal(i + 1), nil
	}
	for _, base := range [...]struct {
		name string
		n    int
	}{{"RTMIN", sigRTMin}, {"RTMAX", sigMax}} {
		offset, ok := strings.CutPrefix(name, base.name)
		if !ok {
			continue
		}
		n := 0
		if offset != "" {
			var err error
			if n, err = strconv.Atoi(offset); err != nil || offset[0] != '+' && offset[0] != '-' {
				break
			}
		}
		if n += base.n; n >= sigRTMin && n <= sigMax {
			return syscall.Signal(n), nil
		}
	}
	return 0, fmt.Errorf("unknown signal %s", quote(s))
}
