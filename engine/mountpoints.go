package engine

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// removeMountPoints removes from what an ended container has written the empty files and directories that were made for its
// mounts to lie on: nobody in the container has seen them, and no image made of it is to have them. Where the image has a name
// for a mount already, nothing was made. A container cannot lead this out of its directory: os.Root sees to it.
func (c *Container) removeMountPoints() error {
	if c.engine.copies() { // then what the image has is there, too
		return nil
	}
	data, err := os.ReadFile(c.path("config.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var spec struct {
		Mounts []struct {
			Destination string `json:"destination"`
		} `json:"mounts"`
	}
	if err := json.Unmarshal(data, &spec); err != nil {
		return nil //nolint:nilerr // a power cut took it: then some empty files stay
	}
	root, err := os.OpenRoot(c.path("upper"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	var names []string
	for _, m := range spec.Mounts {
		if name := strings.Trim(path.Clean("/"+m.Destination), "/"); name != "" {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return len(b) - len(a) }) // what is inside comes first
	for _, name := range names {
		info, err := root.Lstat(name)
		if err != nil {
			continue // not made, or behind something that the container has put there
		}
		if info.IsDir() || info.Mode().IsRegular() && info.Size() == 0 {
			root.Remove(name) //nolint:errcheck // a directory with something in it stays
		}
	}
	return nil
}
