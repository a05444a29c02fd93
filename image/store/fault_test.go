package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/image/content"
)

// visible describes what users see: names and what they name, all of it whole, and leases that persist.
func visible(t *testing.T, s *Store) string {
	t.Helper()
	if r := fsck(t, s, FsckOptions{}); !r.OK() {
		t.Fatalf("the store is damaged: %+v", r.Problems)
	}
	list, err := s.List(ctx)
	must(t, err)
	var text strings.Builder
	for _, n := range list {
		fmt.Fprintln(&text, n.Name, n.Descriptor.Digest)
	}
	leases, err := s.Leases(ctx)
	must(t, err)
	for _, l := range leases {
		if !l.Live {
			fmt.Fprintln(&text, "lease", l.Kind, l.ID, l.Digests, l.Layers)
		}
	}
	return text.String()
}

// Every change of the file system in every operation fails once: the operation says so, and users see what was before or what
// is to be after; and nothing is in the way of doing it again.
func TestEveryWriteFails(t *testing.T) {
	f, m := testImage(t, 2)
	for name, operate := range map[string]func(s *Store) error{
		"pull": func(s *Store) error {
			if err := pushFiles(ctx, s, f, m); err != nil {
				return err
			}
			return s.Tag(ctx, m, "new")
		},
		"retag": func(s *Store) error {
			d, err := s.Resolve(ctx, "old")
			if err != nil {
				return err
			}
			return s.Tag(ctx, d, "second")
		},
		"untag": func(s *Store) error {
			_, err := s.Untag(ctx, "old")
			if errors.Is(err, content.ErrNotFound) {
				return nil
			}
			return err
		},
		"prune": func(s *Store) error {
			_, err := s.Prune(ctx, PruneOptions{All: true})
			return err
		},
		"lease": func(s *Store) error {
			return s.SaveLease(ctx, LeaseInfo{Kind: "container", ID: "x", Layers: []digest.Digest{digest.FromString("x")}})
		},
		"newblob": func(s *Store) error {
			l, err := s.Lease(ctx, "build", "")
			if err != nil {
				return err
			}
			defer l.Release()
			b, err := s.NewBlob(WithLease(ctx, l), digest.SHA512)
			if err != nil {
				return err
			}
			defer b.Close()
			if _, err := b.Write(noise(9, 1000)); err != nil {
				return err
			}
			_, err = b.Commit("a/b")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			failed := errors.New("injected")
			for fail := 0; ; fail++ {
				s := open(t, filepath.Join(t.TempDir(), "store"))
				addImage(t, s, 1, "old")
				before := visible(t, s)
				calls, what := 0, ""
				s.inject = func(op, path string) error {
					if calls++; calls == fail+1 {
						what = op + " " + path
						return fmt.Errorf("%s: %w", op, failed)
					}
					return nil
				}
				err := operate(s)
				s.inject = nil
				state := visible(t, s)
				if calls <= fail {
					must(t, err)
					if fail < 1 {
						t.Errorf("only %d changes", fail)
					}
					return
				}
				// Where dropping the process's hold fails, the hold stays: that is no error.
				if err == nil && !strings.HasPrefix(what, "write "+s.path("leases")) || err != nil && !errors.Is(err, failed) {
					t.Fatalf("%s failed: error %v", what, err)
				}
				must(t, operate(s))
				if after := visible(t, s); state != before && state != after {
					t.Fatalf("%s failed: %s\nis neither\n%s\nnor\n%s", what, state, before, after)
				}
				s.Close()
			}
		})
	}
}

// childFull fills a small file system of its own with images until nothing goes any more.
func childFull(dir string) error {
	if err := errors.Join(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""), os.MkdirAll(dir, 0o700),
		syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k,mode=700")); err != nil {
		return err
	}
	s, err := Open(dir)
	if err != nil {
		return err
	}
	t := &testing.T{}
	good := map[string]digest.Digest{}
	check := func(when string) error {
		r, err := s.Fsck(ctx, FsckOptions{})
		if err != nil || !r.OK() {
			return fmt.Errorf("%s: fsck %+v, %w", when, r, err)
		}
		for name, d := range good {
			if got, err := s.Resolve(ctx, name); err != nil || got.Digest != d {
				return fmt.Errorf("%s: %s is %v, %w", when, name, got, err)
			}
		}
		return nil
	}
	for i := 0; ; i++ {
		f, m := testImage(t, i)
		name := fmt.Sprintf("image-%d", i)
		err := pushFiles(ctx, s, f, m)
		if err == nil {
			err = s.Tag(ctx, m, name)
		}
		if err == nil {
			good[name] = m.Digest
			continue
		}
		if !errors.Is(err, syscall.ENOSPC) || i < 3 {
			return fmt.Errorf("image %d: %w", i, err)
		}
		break
	}
	// The last pages go too, in pieces as small as can be.
	in, err := s.Ingest(ctx, blob(noise(1, 1<<20)))
	for err == nil {
		_, err = in.Write(noise(1, 1024))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	if err := check("full"); err != nil {
		return err
	}
	// From here it gets better: names can be removed, and then their content.
	before := len(good)
	for name := range good {
		if _, err := s.Untag(ctx, name); err != nil {
			return err
		}
		delete(good, name)
		break
	}
	if in != nil {
		in.Close()
	}
	r, err := s.Prune(ctx, PruneOptions{Partial: time.Nanosecond})
	if err != nil || len(r.Blobs) == 0 {
		return fmt.Errorf("prune: %+v, %w", r, err)
	}
	if err := check("pruned"); err != nil {
		return err
	}
	f, m := testImage(t, 1000)
	if err := errors.Join(pushFiles(ctx, s, f, m), s.Tag(ctx, m, "again")); err != nil {
		return err
	}
	fmt.Println("ok", before)
	return check("again")
}

func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root mounts a small file system")
	}
	cmd := childCommand(t, "full", filepath.Join(t.TempDir(), "store"))
	cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil || !strings.HasPrefix(out.String(), "ok ") {
		t.Errorf("%v: %s", err, out.String())
	}
}
