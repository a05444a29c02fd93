package archive

import (
	"fmt"
	"slices"

	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tare-oci/tare/image/reference"
)

// Entry is one of the things that an archive lists.
type Entry struct {
	Ref   string   // for Resolve: the position
	Names []string // a stranger's: any text in an OCI layout; none for an image without a name, and in a dir:
}

// Entries returns what the archive lists, in its order.
func (a *Archive) Entries() ([]Entry, error) {
	switch a.ref.Transport {
	case reference.Dir:
		return []Entry{{}}, nil
	case reference.DockerArchive:
		all, err := a.dockerEntries()
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", a.ref, err)
		}
		list := make([]Entry, len(all))
		for i, e := range all {
			list[i] = Entry{Ref: fmt.Sprintf("@%d", i), Names: e.RepoTags}
		}
		return list, nil
	}
	idx, err := a.index()
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", a.ref, err)
	}
	list := make([]Entry, len(idx.Manifests))
	for i, d := range idx.Manifests {
		list[i].Ref = fmt.Sprintf("@%d", i)
		for _, name := range []string{d.Annotations[containerdName], d.Annotations[v1.AnnotationRefName]} {
			if name != "" && !slices.Contains(list[i].Names, name) {
				list[i].Names = append(list[i].Names, name)
			}
		}
	}
	return list, nil
}
