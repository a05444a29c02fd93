//go:build amd64 || arm64

package nofile

// get is prlimit64(0, RLIMIT_NOFILE, NULL, limit).
//
//go:noescape
func get(limit *[2]uint64)
