package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/tare-oci/tare"

// source is one Go file of the repository, whatever its build constraints.
type source struct {
	name      string // with slashes, relative to the root
	dir       string // likewise, of the package
	test      bool
	generated bool
	lines     int
	fset      *token.FileSet
	ast       *ast.File
}

// in reports whether the file is in one of the directories or below.
func (s *source) in(dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return s.dir == d || strings.HasPrefix(s.dir, d+"/") })
}

// imports calls f for each imported path.
func (s *source) imports(f func(name string, spec *ast.ImportSpec)) {
	for _, i := range s.ast.Imports {
		if name, err := strconv.Unquote(i.Path.Value); err == nil {
			f(name, i)
		}
	}
}

func (s *source) line(p token.Pos) int { return s.fset.Position(p).Line }

// root is the repository's directory.
var root = sync.OnceValue(func() string {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	panic("no go.mod above the working directory")
})

var parsed = sync.OnceValues(func() ([]*source, error) {
	var all []*source
	fset := token.NewFileSet()
	err := filepath.WalkDir(root(), func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root(), name)
		if err != nil {
			return err
		}
		if d.IsDir() {
			base := d.Name()
			if rel != "." && (base[0] == '.' || base == "testdata" || rel == "bin" || rel == "tools") {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		all = append(all, &source{name: rel, dir: path.Dir(rel), test: strings.HasSuffix(rel, "_test.go"), generated: ast.IsGenerated(file),
			lines: strings.Count(string(text), "\n"), fset: fset, ast: file})
		return nil
	})
	return all, err
})

// sources returns all Go files of the module.
func sources(t *testing.T) []*source {
	t.Helper()
	all, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("found only %d files below %s", len(all), root())
	}
	return all
}
