package vm

import (
	"fmt"
	"os/exec"
	"strings"
)

// addPrograms puts programs of the host into the machine, at their places, with the libraries that ldd(1) names.
func (m *Machine) addPrograms(names ...string) error {
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			return fmt.Errorf("%w: %s is needed", ErrUnavailable, name)
		}
		m.Files[path] = path
		out, err := exec.Command("ldd", path).Output()
		if err != nil {
			continue // a static program
		}
		for line := range strings.Lines(string(out)) {
			for _, word := range strings.Fields(line) {
				if strings.HasPrefix(word, "/") {
					m.Files[word] = word
				}
			}
		}
	}
	return nil
}
