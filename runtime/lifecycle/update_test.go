package lifecycle

import "testing"

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "-1": -1, "4096": 4096, "12b": 12, "1k": 1024, "64M": 64 << 20, "64mb": 64 << 20, "2GiB": 2 << 30, "3t": 3 << 40,
		"9223372036854775807": 1<<63 - 1, "7P": 7 << 50, "1.5G": 3 << 29, "1 k": 1024, ".5k": 512,
	} {
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "-2", "k", "1.2.3G", "1  k", ".", "1e3", "-.5k", "infk", "9000.5P", "1x", "1kk", "1ib", "1i", "9223372036854775808", "9007199254740992k", "-1k", "0x10"} {
		if got, err := ParseSize(s); err == nil {
			t.Errorf("ParseSize(%q) = %d", s, got)
		}
	}
}
