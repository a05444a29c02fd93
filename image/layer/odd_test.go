package layer

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tare-oci/tare/image/internal/imagetest"
)

// TestOdd unpacks the odd but legal images in place and for overlayfs, and compares the trees with each other and with umoci's.
func TestOdd(t *testing.T) {
	umoci, err := exec.LookPath("umoci")
	if err != nil {
		t.Log("umoci is not installed: no comparison")
	}
	for _, c := range imagetest.Odd(t) {
		t.Run(c.Name, func(t *testing.T) {
			inPlace, overlay := unpackBoth(t, c.Layers)
			if c.Name != "opaque root" && c.Name != "the same layer twice" { // which the mount has to see to: package snapshot
				equalTrees(t, "overlay and in place", withoutLinks(overlay), withoutLinks(inPlace))
			}
			if umoci != "" && c.Umoci == "" {
				equalTrees(t, "in place and umoci", inPlace, unpackByUmoci(t, umoci, c.Layers))
			}
		})
	}
}

// withoutLinks leaves out who is linked to whom: a file that is copied up to be linked loses its lower names.
func withoutLinks(lines []string) []string {
	lines = slices.Clone(lines)
	for i, l := range lines {
		lines[i], _, _ = strings.Cut(l, " linked to ")
	}
	return lines
}

// unpackByUmoci lists what umoci unpacks, without the root directory.
func unpackByUmoci(t *testing.T, umoci string, layers [][]byte) []string {
	t.Helper()
	img := imagetest.Image{Name: "t"}
	for _, l := range layers {
		img.Layers = append(img.Layers, imagetest.Layer{Tar: l, Compression: "gzip"})
	}
	layout, bundle := imagetest.Layout(t, img).WriteDir(t), filepath.Join(t.TempDir(), "bundle")
	runTool(t, os.TempDir(), umoci, "unpack", "--image", layout+":t", bundle)
	return listing(t, filepath.Join(bundle, "rootfs"), false)[1:]
}
