package house

import (
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"strings"
	"testing"
)

// directions says which rooms a room may import besides itself and internal. Rooms that are not named may import nothing
// but internal.
var directions = map[string][]string{
	"distribution":     {"image"},
	"engine":           {"image", "distribution"},
	"cri":              {"engine", "image", "distribution"},
	"dockerapi":        {"engine", "image", "distribution"},
	"cmd/tare":         {"engine", "image", "distribution"},
	"cmd/tared":        {"cri", "dockerapi", "engine", "image", "distribution"},
	"cmd/tare-runtime": {"runtime"},
}

// room returns the first part of a package's directory, or two parts below cmd, where every binary is its own room.
func room(dir string) string {
	parts := strings.SplitN(dir, "/", 3)
	if parts[0] == "cmd" && len(parts) > 1 {
		return parts[0] + "/" + parts[1]
	}
	return parts[0]
}

func TestImportDirections(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || s.in("test") {
			continue
		}
		from := room(s.dir)
		s.imports(func(name string, _ *ast.ImportSpec) {
			dir, ok := strings.CutPrefix(name, module+"/")
			if !ok {
				return
			}
			to := room(dir)
			allowed := to == from || to == "internal"
			for _, r := range directions[from] {
				allowed = allowed || to == r
			}
			if !allowed {
				t.Errorf("%s imports %s: %s must not know %s. The rooms are layers: image and runtime meet only in the bundle directory on "+
					"disk, and the engine drives a runtime by its command line, so that each part can be replaced and tested alone",
					s.name, name, from, to)
			}
		})
	}
}

func TestUnsafePlaces(t *testing.T) {
	for _, s := range sources(t) {
		s.imports(func(name string, spec *ast.ImportSpec) {
			blank := spec.Name != nil && spec.Name.Name == "_"
			if name == "unsafe" && !strings.Contains(path.Base(s.name), "_unsafe") && !(blank && s.in("runtime/launch")) {
				t.Errorf("%s imports unsafe: such code lives in files named *_unsafe.go, so that a reviewer finds all of it", s.name)
			}
		})
		for _, group := range s.ast.Comments {
			for _, c := range group.List {
				if strings.HasPrefix(c.Text, "//go:linkname") && !s.in("runtime/launch") {
					t.Errorf("%s:%d: go:linkname outside of runtime/launch: it binds to the Go runtime's inside, which only the clone of the "+
						"container's process needs", s.name, s.line(c.Pos()))
				}
			}
		}
	}
}

// syscallTypes are the names of package syscall that look like a call when used as a conversion.
var syscallTypes = map[string]bool{"Errno": true, "Signal": true, "WaitStatus": true}

func TestSystemCallPlaces(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || s.in("internal/sys", "runtime/launch", "test", "internal/house", "internal/tools") {
			continue
		}
		direct := false
		s.imports(func(name string, spec *ast.ImportSpec) {
			if name == "golang.org/x/sys/unix" {
				t.Errorf("%s imports %s: system calls live below internal/sys and in runtime/launch, behind wrappers with types and errors; "+
					"see docs/decisions/0001-system-calls-in-one-place.md", s.name, name)
			}
			direct = direct || name == "syscall" && spec.Name == nil
		})
		if !direct {
			continue
		}
		ast.Inspect(s.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "syscall" && !syscallTypes[sel.Sel.Name] {
				t.Errorf("%s:%d: calls syscall.%s: system calls live below internal/sys and in runtime/launch; elsewhere package syscall is for "+
					"its types and constants", s.name, s.line(call.Pos()), sel.Sel.Name)
			}
			return true
		})
	}
}

func TestPackageDocs(t *testing.T) {
	docs, names := map[string][]string{}, map[string]string{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		names[s.dir] = s.ast.Name.Name
		if s.ast.Doc != nil && s.ast.Doc.Text() != "" {
			docs[s.dir] = append(docs[s.dir], s.name)
			if text := s.ast.Doc.Text(); s.ast.Name.Name != "main" && !strings.HasPrefix(text, "Package "+s.ast.Name.Name+" ") {
				t.Errorf("%s: the package comment should begin with %q", s.name, "Package "+s.ast.Name.Name)
			}
		}
	}
	for dir := range names {
		switch len(docs[dir]) {
		case 0:
			t.Errorf("%s has no package comment: one says what the package is for, in the file where a reader begins", dir)
		case 1:
		default:
			t.Errorf("%s has several package comments, of which go doc makes one confused text: %s", dir, strings.Join(docs[dir], ", "))
		}
	}
}

const (
	maxFileLines     = 600
	maxFunctionLines = 80
)

func TestLengths(t *testing.T) {
	for _, s := range sources(t) {
		if s.generated {
			continue
		}
		if s.lines > maxFileLines {
			t.Errorf("%s has %d lines, at most %d: split it by subject", s.name, s.lines, maxFileLines)
		}
		if s.test {
			continue // a table may be long
		}
		for _, d := range s.ast.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := s.line(f.End()) - s.line(f.Pos()) + 1; n > maxFunctionLines {
				t.Errorf("%s:%d: function %s has %d lines, at most %d: a function that fits on a screen can be reviewed",
					s.name, s.line(f.Pos()), f.Name.Name, n, maxFunctionLines)
			}
		}
	}
}

func TestNothingLeftForLater(t *testing.T) {
	later := regexp.MustCompile(`\b(TODO|FIXME|XXX)\b`)
	for _, s := range sources(t) {
		if s.in("internal/house") {
			continue
		}
		for _, group := range s.ast.Comments {
			for _, c := range group.List {
				if later.MatchString(c.Text) {
					t.Errorf("%s:%d: %s: what does not work yet is refused with an error that names it, and planned in an issue",
						s.name, s.line(c.Pos()), later.FindString(c.Text))
				}
			}
		}
	}
}

// plainMethods implement interfaces that everybody knows.
var plainMethods = map[string]bool{"Error": true, "Unwrap": true, "Is": true, "String": true, "Read": true, "Write": true, "Close": true,
	"Len": true, "Less": true, "Swap": true, "MarshalJSON": true, "UnmarshalJSON": true, "MarshalText": true, "UnmarshalText": true}

func TestExportedDocs(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || s.generated || s.ast.Name.Name == "main" || s.in("test") {
			continue
		}
		missing := func(p token.Pos, name string) {
			t.Errorf("%s:%d: %s has no comment: exported names say what callers must know: units, ranges, errors, ownership",
				s.name, s.line(p), name)
		}
		for _, d := range s.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Doc == nil && d.Name.IsExported() && exportedReceiver(d) && !(d.Recv != nil && plainMethods[d.Name.Name]) {
					missing(d.Pos(), d.Name.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if ts, ok := spec.(*ast.TypeSpec); ok && ts.Name.IsExported() && ts.Doc == nil && d.Doc == nil && ts.Comment == nil {
						missing(ts.Pos(), ts.Name.Name)
					}
				}
			}
		}
	}
}

func exportedReceiver(f *ast.FuncDecl) bool {
	if f.Recv == nil || len(f.Recv.List) == 0 {
		return true
	}
	exported := false
	ast.Inspect(f.Recv.List[0].Type, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && !exported {
			exported = id.IsExported()
			return false
		}
		return true
	})
	return exported
}

func TestStartupCost(t *testing.T) {
	const why = "tare-runtime is started for every operation and lives for milliseconds: nothing is computed before main"
	for _, s := range sources(t) {
		if s.test || !s.in("runtime", "internal", "cmd/tare-runtime") || s.ast.Name.Name == "main" && !s.in("cmd") {
			continue
		}
		for _, d := range s.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					t.Errorf("%s:%d: func init: %s", s.name, s.line(d.Pos()), why)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					v, ok := spec.(*ast.ValueSpec)
					if !ok || d.Tok != token.VAR {
						continue
					}
					for _, value := range v.Values {
						lit, ok := value.(*ast.CompositeLit)
						if !ok {
							continue
						}
						if _, ok := lit.Type.(*ast.MapType); ok {
							t.Errorf("%s:%d: map as a package variable: %s; use a switch or a sorted array", s.name, s.line(v.Pos()), why)
						}
					}
				}
			}
		}
	}
}
