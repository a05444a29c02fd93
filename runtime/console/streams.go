package console

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/tare-oci/tare/internal/sys/descriptor"
	"github.com/tare-oci/tare/internal/sys/mount"
	"github.com/tare-oci/tare/internal/sys/pty"
	"github.com/tare-oci/tare/internal/sys/scheduler"
)

// Streams are the standard streams of a process in a container, as far as they are not this process's own.
//
// A pipe or a socket is handed over: callers make them for the container, and nothing but its other end can be reached through
// one. A file, a terminal, a device or a directory is the caller's: through /proc/self/fd the container could open a file for
// writing that was redirected for reading, read what the terminal's other users type, or leave its root by the directory. A
// foreground command copies between those and pipes, so that the container never has them.
type Streams struct {
	// Child is what the process gets for the streams 0, 1 and 2; nil: this process's own one.
	Child [3]*os.File
	// Directories are the numbers of the detached streams that were directories, which no program can read.
	Directories []int

	// Host is the terminal of the person in front of a foreground process with a terminal of its own; nil for others.
	Host *os.File

	in      *os.File    // our end of the pipe for standard input; nil: not copied
	out     [3]*os.File // our ends for output, by number
	copying bool        // output is copied
	outputs sync.WaitGroup
}

// Relay looks at this process's streams and makes a pipe for each that a foreground command copies. The pipes belong to the user
// owner of the host (-1: to this process's), so that the process in the container can open /dev/stdout. The caller calls Close.
func Relay(owner int) (*Streams, error) {
	s := new(Streams)
	var infos [3]fs.FileInfo
	for n, f := range [3]*os.File{os.Stdin, os.Stdout, os.Stderr} {
		info, err := f.Stat()
		if err == nil && isNull(info) {
			if err := s.null(n); err != nil {
				s.Close()
				return nil, err
			}
			continue
		}
		if err != nil || handedOver(info) {
			continue // closed by the caller: nothing to copy
		}
		infos[n] = info
		if n == 2 && infos[1] != nil && os.SameFile(infos[1], info) {
			s.Child[2] = s.Child[1] // one pipe keeps the order of what is written to both
			continue
		}
		r, w, err := descriptor.Pipe()
		if err != nil {
			s.Close()
			return nil, err
		}
		if n == 0 {
			s.Child[0], s.in = r, w
		} else {
			s.Child[n], s.out[n] = w, r
		}
		if owner >= 0 {
			s.Child[n].Chown(owner, -1) // without the right to it the pipe can be used, not opened anew
		}
	}
	return s, nil
}

// null gives the process a null device of its own for stream n. With the host's, root of the container could change the
// mode and the owner of the file that every process of the host uses; another user cannot.
func (s *Streams) null(n int) (err error) {
	if os.Geteuid() == 0 {
		s.Child[n], err = mount.Null()
	}
	return err
}

// Detached looks at this process's streams for a process that outlives it: they are handed over as they are, except the
// null device and a directory, which are replaced by a null device of its own. The caller calls Close.
func Detached() (*Streams, error) {
	s := new(Streams)
	for n, f := range [3]*os.File{os.Stdin, os.Stdout, os.Stderr} {
		info, err := f.Stat()
		switch {
		case err != nil:
		case info.IsDir():
			s.Directories = append(s.Directories, n)
			if s.Child[n], err = mount.Null(); err != nil {
				s.Close()
				return nil, err
			}
		case isNull(info):
			if err := s.null(n); err != nil {
				s.Close()
				return nil, err
			}
		}
	}
	return s, nil
}

// handedOver tells whether the container gets a stream itself.
func handedOver(info fs.FileInfo) bool {
	kind := info.Mode().Type()
	return kind == fs.ModeNamedPipe || kind == fs.ModeSocket || isNull(info)
}

// isNull tells whether a file is the null device.
func isNull(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode().Type() == fs.ModeDevice|fs.ModeCharDevice && uint64(st.Rdev) == 1<<8|3
}

// Start begins to copy, once the process in the container has its ends of the pipes.
func (s *Streams) Start() {
	s.closeChild()
	if s.in != nil || s.out != [3]*os.File{} {
		scheduler.Concurrent()
	}
	if s.in != nil {
		go copyInput(s.in)
		s.in = nil
	}
	for n, to := range [3]*os.File{1: os.Stdout, 2: os.Stderr} {
		if from := s.out[n]; from != nil {
			s.copying = true
			s.outputs.Add(1)
			go func() {
				defer s.outputs.Done()
				copyOutput(to, from)
			}()
			s.out[n] = nil
		}
	}
}

// Copying tells whether Start has begun to copy output.
func (s *Streams) Copying() bool { return s.copying }

// Wait returns when every process that could write to a copied stream has closed it, and all of it was copied.
func (s *Streams) Wait() { s.outputs.Wait() }

// Close releases what Start has not taken over.
func (s *Streams) Close() {
	s.closeChild()
	closeHost(s.Host)
	s.Host = nil
	for _, f := range append(s.out[:], s.in) {
		if f != nil {
			f.Close()
		}
	}
	s.in, s.out = nil, [3]*os.File{}
}

func (s *Streams) closeChild() {
	for n, f := range s.Child {
		if f != nil && (n != 2 || f != s.Child[1]) {
			f.Close()
		}
	}
	s.Child = [3]*os.File{}
}

// copySize is what a pipe holds.
const copySize = 64 << 10

// copyInput copies standard input until its end, which the process sees as the end of the pipe. An input that cannot be read, a
// directory for example, is at its end.
func copyInput(to *os.File) {
	defer to.Close()
	var before func()
	if pty.IsTerminal(os.Stdin) {
		before = awaitForeground
	}
	copyStream(to, os.Stdin, before)
}

// awaitForeground keeps a job in the background from being stopped because it reads the terminal, whether its program wants input or
// not.
func awaitForeground() {
	for !pty.InForeground(os.Stdin) {
		time.Sleep(backgroundPoll)
	}
}

// backgroundPoll is how late a job that is brought to the foreground begins to read.
const backgroundPoll = 200 * time.Millisecond

// copyOutput copies what the process writes. When it cannot be written the process is told by a broken pipe.
func copyOutput(to, from *os.File) {
	defer from.Close()
	copyStream(to, from, nil)
}

// copyStream copies until an end or an error; before, if not nil, is called before each read.
func copyStream(to, from *os.File, before func()) {
	buf := make([]byte, copySize)
	for {
		if before != nil {
			before()
		}
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}
