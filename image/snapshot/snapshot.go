// Package snapshot keeps the layers of images as directories, each unpacked once for all images that have it, and puts them
// together to root file systems.
//
//	DIR/sha256/HEX/fs          the files of the layer whose uncompressed tar archive has this digest
//	DIR/sha256/HEX/layer.json  what is known of it; locked by who uses the layer
//	DIR/sha256/HEX/synced      is there once the files are on disk for certain
//	DIR/sha256/HEX.part        a layer that is being unpacked, under the lock HEX.lock
//	DIR/sha256/HEX.gone        a layer that is being removed, under the same lock
//	DIR/chain/sha256/HEX/      a layer that cannot be unpacked without those below it, by the chain ID of them all
//	DIR/copy/…                 the same for the driver Copy
//	DIR/driver                 which driver works here, as was found out during the boot that it names
//
// A directory gets a digest's name only after the archive that it was unpacked from has been hashed to that digest: what an
// image says its layers are is believed of nobody (CVE-2026-93318).
//
// A process may be killed between any two system calls. The locks die with it, and who takes them next finds what is half
// done by its name and removes it. Nobody waits for the disk: a layer that is not known to be on disk is good until the kernel
// stops, which its boot ID tells, and is unpacked again after that.
package snapshot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/image/layer"
	"github.com/tare-oci/tare/image/reference"
)

// Options of a store. The zero value is for general use.
type Options struct {
	Limits layer.Limits // of each layer
	Driver Driver
}

// A Driver makes root file systems of layers.
type Driver string

// The drivers. Layers are unpacked in another form for each, and do not mix.
const (
	Auto    Driver = ""        // what works where the store is: see Store.Driver
	Overlay Driver = "overlay" // overlayfs shows the layers' directories merged
	Copy    Driver = "copy"    // the layers are copied over each other, sharing blocks where the file system can
)

// A Store is a directory with unpacked layers. Any number of stores, in any number of processes, may work on the same
// directory at the same time; methods may be called from several goroutines at once.
type Store struct {
	dir      string // of the driver's layers
	opts     Options
	driver   Driver
	boot     string
	rootless bool // without root's rights, or with those of a user namespace
}

// Layer is a layer of an image, to be unpacked if it is not there.
type Layer struct {
	DiffID digest.Digest // of the uncompressed tar archive
	Digest digest.Digest // of the stored bytes; for errors only, may be empty
	// Open opens the stored bytes, compressed or not. It is called only if the layer has to be unpacked, maybe more than once.
	// The reader is read to its end and closed; it must end with io.EOF only if the bytes are whole and verified. Reads that
	// wait (for a download, say) must end when the context of the call ends. Nil: the layer is used only if it is there.
	Open func() (io.ReadCloser, error)
}

// name is what an error calls the layer.
func (l *Layer) name() string {
	if l.Digest != "" {
		return fmt.Sprintf("layer %.19s", l.Digest)
	}
	return fmt.Sprintf("layer %.19s", l.DiffID)
}

// Info is what is known of an unpacked layer.
type Info struct {
	DiffID     digest.Digest `json:"diffId"`
	Size       int64         `json:"size"`                 // bytes of the uncompressed archive
	Entries    int64         `json:"entries"`              // of the archive
	Whiteouts  int64         `json:"whiteouts,omitempty"`  // of them, that may hide something
	RootEntry  bool          `json:"rootEntry,omitempty"`  // the archive said what the root directory is like
	RootOpaque bool          `json:"rootOpaque,omitempty"` // it hides everything below it
	NeedsLower bool          `json:"needsLower,omitempty"` // unpacked alone it may be wrong above another layer
	// Problem is why the layer could not be unpacked alone at all; there are no files then.
	Problem string `json:"problem,omitempty"`
	// Skipped says in sentences what could not be kept, at most 20; SkippedCount counts all.
	Skipped      []string `json:"skipped,omitempty"`
	SkippedCount int64    `json:"skippedCount,omitempty"`
	// Chain are, for a layer that was unpacked above others, the diff IDs of those below, the lowest first.
	Chain []digest.Digest `json:"chain,omitempty"`
	// Boot is the boot during which it was unpacked.
	Boot string `json:"boot"`
}

// Open opens the store in the directory dir, which it makes, open to its owner only.
func Open(dir string, o Options) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open layers: %w", err)
	}
	s := &Store{dir: dir, opts: o, driver: o.Driver, boot: bootID(), rootless: os.Geteuid() != 0 || inUserNamespace()}
	switch o.Driver {
	case Auto:
		if s.driver, err = s.choose(); err != nil {
			return nil, fmt.Errorf("open layers: %w", err)
		}
	case Overlay, Copy:
	default:
		return nil, fmt.Errorf("open layers: driver %q: there are overlay and copy", o.Driver)
	}
	if s.driver == Copy {
		s.dir = filepath.Join(dir, "copy")
	}
	if err := os.MkdirAll(s.path("sha256"), 0o700); err != nil {
		return nil, fmt.Errorf("open layers: %w", err)
	}
	return s, nil
}

// Driver is the one that the store works with.
func (s *Store) Driver() Driver { return s.driver }

// inUserNamespace reports whether root's rights are those of a user namespace only, with which overlayfs keeps its marks in
// attributes user.*, and not every file can have its owner. user_namespaces(7): the first namespace maps all IDs to themselves.
func inUserNamespace() bool {
	ids, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(ids)), " ") != "0 0 4294967295"
}

// bootID tells one boot of the kernel from another; empty if that is not known.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// layerDir is where the layer of a digest, which has been checked, belongs below the store's directory.
func layerDir(d digest.Digest) string {
	return filepath.Join(d.Algorithm().String(), d.Encoded())
}

func checkDiffID(d digest.Digest) error {
	if err := reference.CheckVerifiable(d); err != nil {
		return fmt.Errorf("diff ID %w", err)
	}
	return nil
}

// errAbsent says that a layer is not there, or not any more.
var errAbsent = errors.New("layer is not unpacked")

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}
