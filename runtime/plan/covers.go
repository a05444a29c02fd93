package plan

import (
	"fmt"
	"path"
)

// makeCwd makes a missing working directory, before anything is read-only.
func (c *compiler) makeCwd() {
	if p := c.spec.Process; p != nil && path.IsAbs(p.Cwd) && path.Clean(p.Cwd) != "/" {
		c.add(MakeCwd{path.Clean(p.Cwd)})
	}
}

// covers compiles linux.readonlyPaths and linux.maskedPaths, each path once. They come before the pivot, while the host's
// /dev/null can still be reached: it is the one that no image can replace.
func (c *compiler) covers() error {
	c.makeCwd()
	c.add(c.protect...)
	for _, at := range []Place{OnProc, OnSys} {
		if c.mounted[at] {
			c.add(StillThere{at})
		}
	}
	seen := make(map[string]bool, len(c.linux.ReadonlyPaths)+len(c.linux.MaskedPaths))
	for _, p := range c.linux.ReadonlyPaths {
		p = path.Clean(p)
		if p == "/" {
			c.rootRO = true
			continue
		}
		if !seen[p] {
			seen[p] = true
			c.add(ReadOnly{Path: p, At: placeOf(p)})
		}
	}
	clear(seen)
	for _, p := range c.linux.MaskedPaths {
		p = path.Clean(p)
		if p == "/" {
			return fmt.Errorf("linux.maskedPaths: %q would hide the whole root file system", p)
		}
		if !seen[p] {
			seen[p] = true
			c.add(Mask{Path: p, At: placeOf(p)})
		}
	}
	return nil
}
