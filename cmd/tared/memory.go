package main

import (
	"os"
	"runtime/debug"
)

// relaxGC lets the heap grow to five times of what is used before memory is collected: a registry uses so little (bodies pass
// through fixed buffers, manifests in memory are limited) that it would else collect at every few thousand requests. GOGC in the
// environment wins.
func relaxGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}
