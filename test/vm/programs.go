package vm

import (
	"fmt"
	"os/exec"
	"strings"
)

// programFiles returns the files of programs of the host, at their places: themselves and the libraries that ldd(1)
// names.
func programFiles(names []string) (map[string]string, error) {
	files := map[string]string{}
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			return nil, fmt.Errorf("%w: %s is needed", ErrUnavailable, name)
		}
		files[path] = path
		out, err := exec.Command("ldd", path).Output()
		if err != nil {
			continue // a static program
		}
		for _, word := range strings.Fields(string(out)) {
			if strings.HasPrefix(word, "/") {
				files[word] = word
			}
		}
	}
	return files, nil
}
