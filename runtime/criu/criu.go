// Package criu drives criu(8), which dumps the processes of a container to a directory of images and makes them from it again.
//
// The program is the host's, started in a mount namespace of its own with a clean environment, and spoken to over a socket
// (`criu swrk`) in protocol buffers, of which this package encodes the few messages that it needs by hand:
//
//	runtime                               criu
//	  ── version ─────────────────────────►
//	  ◄──────────────────────── version ───
//	  ── dump | pre-dump | restore ───────►
//	  ◄─────────────── notify(stage) ──────   setup-namespaces, post-restore, pre-resume, orphan-pts-master, …
//	  ── notify(success) ─────────────────►
//	  ◄───────────── dump | restore ───────   the end
//
// What is in a directory of images is not trusted: it may have been made to reach what the container never could.
package criu

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/tare-oci/tare/internal/sys/descriptor"
	"github.com/tare-oci/tare/internal/sys/unixsock"
	"github.com/tare-oci/tare/runtime/cgroup"
	"github.com/tare-oci/tare/runtime/launch"
	"github.com/tare-oci/tare/runtime/plan"
)

// MinVersion is the oldest criu that is used, as criu counts: 3.16 is the first that sets a given security label at restore.
const MinVersion = 31600

// searched are the directories in which criu is looked for, after those of PATH.
const searched = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Find returns the absolute path of the host's criu.
func Find() (string, error) {
	for _, dir := range filepath.SplitList(os.Getenv("PATH") + ":" + searched) {
		if !filepath.IsAbs(dir) {
			continue
		}
		path := filepath.Join(dir, "criu")
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", errors.New("criu is not installed: it was looked for in PATH and in " + searched +
		" (checkpoint and restore need criu 3.16 or newer)")
}

// Setup says in which surroundings criu is started.
type Setup struct {
	Cgroups     []*os.File // as launch.Resources has them
	CgroupNames []string
	CgroupDir   *os.File
	Unshare     uint64            // further new namespaces for criu and what it restores
	NoNewPrivs  bool              // likewise: criu 3.17 does not restore the flag, but what it makes inherits it
	Process     *os.File          // pidfd of the process whose mounts are cloned
	Dir         string            // where they are attached
	Mounts      []plan.CloneMount // what is cloned
	OwnStdio    bool              // criu has the runtime's standard streams: it takes the terminal of a shell's job from there
	Readable    bool              // images that criu makes may be read by the root of another user namespace who gets to them
	Fault       int               // as launch.Resources has it; for tests
	Pass        []*os.File        // further descriptors for Options.Inherit, under their own numbers
}

// Join adds cgroups that criu is to be in.
func (s *Setup) Join(files []cgroup.JoinFile) {
	for _, j := range files {
		if j.IntoCgroup {
			s.CgroupDir = j.File
			continue
		}
		s.Cgroups = append(s.Cgroups, j.File)
		s.CgroupNames = append(s.CgroupNames, strings.TrimPrefix(j.Why, "join cgroup "))
	}
}

// Notice is a stage that criu has reached.
type Notice struct {
	Stage string
	PID   int      // of the root task, where criu tells it
	File  *os.File // a terminal's master for orphan-pts-master; the callee closes it
}

// Process is a running criu. It is not safe for concurrent use.
type Process struct {
	PID     int
	Version int

	child *launch.Child
	sock  *os.File
}

// Start starts the criu at path and asks for its version. The caller calls Close.
func Start(path string, s *Setup) (*Process, error) {
	ours, theirs, err := unixsock.MessagePair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	keep := append([]*os.File{theirs}, s.Pass...)
	umask := uint32(0o077)
	if s.Readable {
		umask = 0o022
	}
	p := plan.CompileHostProgram(plan.HostProgram{
		Args:    []string{path, "swrk", fmt.Sprint(theirs.Fd())},
		Env:     []string{"PATH=" + searched, "LC_ALL=C"},
		Cgroups: s.CgroupNames, Unshare: s.Unshare, Keep: len(keep), Dir: s.Dir, Mounts: s.Mounts,
		NoNewPrivs: s.NoNewPrivs, Umask: umask,
	})
	res := &launch.Resources{Cgroups: s.Cgroups, CgroupDir: s.CgroupDir, Process: s.Process, Keep: keep, Fault: s.Fault}
	said := &stderr{}
	if !s.OwnStdio {
		if err := said.open(); err != nil {
			ours.Close()
			return nil, err
		}
		defer said.close()
		res.Stdio = [3]*os.File{said.null, said.null, said.file}
	}
	child, err := launch.Start(p, res)
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("start criu: %w", err)
	}
	c := &Process{PID: child.PID, child: child, sock: ours}
	for _, step := range []func() error{child.Begin, child.Finish, func() error { return child.Await(0) }} {
		if err := step(); err != nil {
			c.Close()
			return nil, fmt.Errorf("start criu: %w", err)
		}
	}
	theirs.Close() // so that the end of criu is noticed
	r, err := c.call(request(version, nil, true), nil)
	if e := (*Error)(nil); errors.As(err, &e) {
		err = fmt.Errorf("start criu: %s%s", e.Reason, said.text())
	}
	if err == nil && r.version < MinVersion {
		err = fmt.Errorf("%s is version %s: checkpoint and restore need %s or newer", path, versionText(r.version), versionText(MinVersion))
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	c.Version = r.version
	return c, nil
}

// stderr collects what criu says before it has a log.
type stderr struct{ null, file *os.File }

func (s *stderr) open() (err error) {
	if s.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return err
	}
	if s.file, err = descriptor.Memory("criu's stderr"); err != nil {
		s.null.Close()
	}
	return err
}

func (s *stderr) close() {
	s.null.Close()
	s.file.Close()
}

// text is what there is, as the end of a sentence.
func (s *stderr) text() string {
	if s.file == nil {
		return ""
	}
	data, _ := io.ReadAll(io.NewSectionReader(s.file, 0, logEnd))
	if len(bytes.TrimSpace(data)) == 0 {
		return ""
	}
	return "; it says:\n" + quoteText(data)
}

func versionText(v int) string {
	s := fmt.Sprintf("%d.%d", v/10000, v/100%100)
	if v%100 != 0 {
		s += fmt.Sprintf(".%d", v%100)
	}
	return s
}

// Need refuses a kernel or criu without what pre-dumps (track) and lazy pages need.
func (c *Process) Need(track, lazy bool) error {
	if !track && !lazy {
		return nil
	}
	features := message(nil).flag(1, track).flag(2, lazy)
	r, err := c.call(request(featureCheck, nil, true).nested(5, features), nil)
	switch {
	case err != nil:
		return err
	case track && !r.track:
		return errors.New("criu or this kernel cannot track changes of memory, which --pre-dump needs")
	case lazy && !r.lazy:
		return errors.New("criu or this kernel cannot fetch pages lazily (userfaultfd), which --lazy-pages needs")
	}
	return nil
}

// Error is a request that criu refused or failed to do.
type Error struct {
	Kind   Kind
	Reason string // in criu's words, or the errno
	Log    string // path of criu's log
	Quote  string // what it says
	Hint   string
}

// Error implements error. The lines of the log are last.
func (e *Error) Error() string {
	s := "criu " + e.Kind.String()
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	if e.Quote != "" {
		s += "; " + e.Log + " says:\n" + e.Quote
	}
	return s
}

// Do makes a request and serves criu until it is done: told gets each stage. An error of told is returned at once, while criu still
// waits for the answer: the caller ends criu and what it has made. Do returns the number of the restored root task. log is the path of the file that o.LogFile makes.
func (c *Process) Do(k Kind, o *Options, log string, told func(Notice) error) (int, error) {
	o.NFTables = c.Version >= 31700
	r, err := c.call(request(k, o, false), told)
	if err == nil {
		return r.pid, nil
	}
	var e *Error
	if errors.As(err, &e) {
		e.Kind, e.Log, e.Quote = k, log, quote(log)
		if strings.Contains(e.Quote, "initializing kerndat") {
			e.Hint = "this criu does not work on this kernel"
		}
	}
	return 0, err
}

// call sends a request and returns the response that ends it. An error of told ends it at once: criu is not listened to any more.
func (c *Process) call(req message, told func(Notice) error) (response, error) {
	if err := unixsock.SendMessage(c.sock, req); err != nil {
		return response{}, fmt.Errorf("write to criu: %w", err)
	}
	buf := make([]byte, 64<<10)
	for {
		n, fd, err := unixsock.ReceiveMessage(c.sock, buf)
		if errors.Is(err, syscall.ECONNRESET) {
			n, err = 0, nil // it has not even read
		}
		if err != nil {
			return response{}, fmt.Errorf("read from criu: %w", err)
		}
		var file *os.File
		if fd >= 0 {
			file = os.NewFile(uintptr(fd), "/dev/ptmx")
		}
		if n == 0 {
			return response{}, &Error{Reason: "it ended without an answer"}
		}
		r, err := decodeResponse(buf[:n])
		if file != nil && (err != nil || r.kind != notify || told == nil) {
			file.Close()
		}
		switch {
		case err != nil:
			return response{}, fmt.Errorf("decode criu's answer: %w", err)
		case r.kind == notify:
			if told != nil {
				if err := told(Notice{Stage: r.script, PID: r.notePID, File: file}); err != nil {
					return response{}, err
				}
			}
			if err := unixsock.SendMessage(c.sock, acknowledge()); err != nil {
				return response{}, fmt.Errorf("write to criu: %w", err)
			}
		case !r.success:
			return response{}, &Error{Reason: reason(r)}
		default:
			return r, nil
		}
	}
}

func reason(r response) string {
	switch {
	case r.errmsg != "":
		return strings.TrimSpace(printable([]byte(r.errmsg)))
	case r.errno != 0:
		return syscall.Errno(r.errno).Error() // of a system call, not always of the one that mattered: the log tells more
	}
	return "failed"
}

// Close ends criu, if it still runs, and waits for it.
func (c *Process) Close() {
	c.sock.Close()
	c.child.Abort()
}

// Wait waits until criu has ended by itself. Close is still called.
func (c *Process) Wait() {
	c.sock.Close()
	c.child.Wait()
}
