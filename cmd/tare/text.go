package main

import (
	"path"
	"strconv"
	"strings"

	"github.com/tare-oci/tare/engine"
)

// printable makes of a stranger's text what a terminal does not act on.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// matchReference tells whether a pattern is for an image: for its repository, with the tag or without.
func matchReference(pattern string, i engine.ImageInfo) bool {
	for _, s := range []string{i.Repository, i.Repository + ":" + i.Tag} {
		if ok, err := path.Match(pattern, s); ok && err == nil {
			return true
		}
	}
	return false
}
