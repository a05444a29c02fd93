package store

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
)

// disk says what a power cut would leave of a store: the content of files as of their last sync, and the names in directories
// either as of the directory's last sync, or as they are now, which is where a journal may have come to.
type disk struct {
	t       *testing.T
	dir     string
	open    map[uint64]*os.File          // by inode: keeps the number from being used again
	content map[uint64]string            // by inode, as synced
	names   map[string]map[string]uint64 // by directory, as synced
	pending string                       // what was about to be synced: a path
	isDir   bool
}

func newDisk(t *testing.T, dir string) *disk {
	d := &disk{t: t, dir: dir, open: map[uint64]*os.File{}, content: map[uint64]string{}, names: map[string]map[string]uint64{}}
	t.Cleanup(func() {
		for _, f := range d.open {
			f.Close()
		}
	})
	d.walk(func(path string, inode uint64, isDir bool) { // until now all is on the disk
		if isDir {
			d.syncDir(path)
		} else {
			d.syncFile(path, inode)
		}
	})
	return d
}

func (d *disk) walk(each func(path string, inode uint64, isDir bool)) {
	must(d.t, filepath.WalkDir(d.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		each(path, d.inode(path), e.IsDir())
		return nil
	}))
}

func (d *disk) inode(path string) uint64 {
	info, err := os.Lstat(path)
	must(d.t, err)
	n := info.Sys().(*syscall.Stat_t).Ino
	if d.open[n] == nil {
		f, err := os.Open(path)
		must(d.t, err)
		d.open[n] = f
	}
	return n
}

func (d *disk) syncFile(path string, inode uint64) {
	data, err := os.ReadFile(path)
	must(d.t, err)
	d.content[inode] = string(data)
}

func (d *disk) syncDir(path string) {
	entries, err := os.ReadDir(path)
	must(d.t, err)
	d.names[path] = map[string]uint64{}
	for _, e := range entries {
		d.names[path][e.Name()] = d.inode(filepath.Join(path, e.Name()))
	}
}

// step is called before a change, when the one before is done.
func (d *disk) step(op, path string) {
	if d.pending != "" && d.isDir {
		d.syncDir(d.pending)
	} else if d.pending != "" {
		d.syncFile(d.pending, d.inode(d.pending))
	}
	d.pending, d.isDir = "", false
	switch op {
	case "sync":
		d.pending = path
	case "syncdir":
		if d.pending, d.isDir = path, true; filepath.Base(path) == "index.json" {
			d.pending = filepath.Dir(path)
		}
	case "write":
		if strings.HasSuffix(path, persistent) && strings.Contains(path, "leases") { // atomicfile syncs
			d.pending = ""
		}
	}
}

// after builds what a power cut would leave, and returns its directory.
func (d *disk) after(journaled bool) string {
	to := filepath.Join(d.t.TempDir(), "store")
	d.copy(d.dir, to, journaled)
	return to
}

func (d *disk) copy(from, to string, journaled bool) {
	must(d.t, os.Mkdir(to, 0o700))
	names := d.names[from]
	if journaled || names == nil {
		names = map[string]uint64{}
		entries, err := os.ReadDir(from)
		must(d.t, err)
		for _, e := range entries {
			names[e.Name()] = d.inode(filepath.Join(from, e.Name()))
		}
	}
	for name, inode := range names {
		info, err := d.open[inode].Stat()
		must(d.t, err)
		if info.IsDir() {
			d.copy(filepath.Join(from, name), filepath.Join(to, name), journaled)
			continue
		}
		data, synced := d.content[inode]
		if !synced { // as long as it was, and nothing in it
			data = strings.Repeat("\x00", int(info.Size()))
		}
		must(d.t, os.WriteFile(filepath.Join(to, name), []byte(data), 0o600))
	}
}

// After a power cut at every change in every operation the store is whole, and users see what was before or what is to be after;
// once the operation has returned, only that.
func TestPowerCut(t *testing.T) {
	f, m := testImage(t, 2)
	for name, operate := range map[string]func(s *Store) error{
		"pull": func(s *Store) error {
			if err := pushFiles(ctx, s, f, m); err != nil {
				return err
			}
			return s.Tag(ctx, m, "new")
		},
		"pull of another algorithm": func(s *Store) error {
			b, err := s.NewBlob(ctx, digest.SHA512)
			if err != nil {
				return err
			}
			io.WriteString(b, "{}")
			d, err := b.Commit("a/b")
			if err != nil {
				return err
			}
			return s.Tag(ctx, d, "new")
		},
		"untag and prune": func(s *Store) error {
			if _, err := s.Untag(ctx, "old"); err != nil {
				return err
			}
			_, err := s.Prune(ctx, PruneOptions{})
			return err
		},
		"prune all": func(s *Store) error {
			_, err := s.Prune(ctx, PruneOptions{All: true})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			addImage(t, s, 1, "old")
			before := visible(t, s)
			d := newDisk(t, s.Dir())
			states := []string{}
			look := func() {
				for _, journaled := range []bool{false, true} {
					left := open(t, d.after(journaled))
					states = append(states, visible(t, left))
					left.Close()
				}
			}
			s.inject = func(op, path string) error {
				d.step(op, path)
				look()
				return nil
			}
			must(t, operate(s))
			s.inject = nil
			d.step("", "")
			after := visible(t, s)
			look()
			for i, state := range states {
				if state != after && (state != before || i >= len(states)-2) {
					t.Errorf("state %d of %d:\n%s\nis neither\n%s\nnor\n%s", i, len(states), state, before, after)
				}
			}
			if before == after || len(states) < 10 {
				t.Errorf("%d states from %s to %s", len(states), before, after)
			}
		})
	}
}
