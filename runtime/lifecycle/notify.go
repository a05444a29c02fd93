package lifecycle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/sys/scheduler"
	"github.com/tare-oci/tare/internal/sys/unixsock"
	"github.com/tare-oci/tare/runtime/state"
)

// A service manager that starts the runtime may wait for a message of its service, over the socket that NOTIFY_SOCKET names
// (sd_notify(3)). The container gets a socket of its own, and the runtime passes the message on, because the container's process
// neither reaches the manager's socket nor knows its own pid as the manager sees it:
//
//	container                runtime                      service manager
//	READY=1 ───────────────► start, run -d, run
//	                         READY=1 ────────────────────►
//	                         MAINPID=pid ────────────────►
//	                         BARRIER=1 and a pipe ───────►
//	                         ◄────────── closes the pipe (or 30 s pass)
//
// The socket is in a directory below the container's, which is bound on /run/notify before the socket exists: create makes the
// directory, and start the socket. Nothing else that the container sends is passed on.
const (
	notifyDir       = "notify" // below the container's state directory
	notifyName      = "notify.sock"
	notifyContainer = "/run/notify"
	barrierTimeout  = 30 * time.Second
	// notifyMax is the size of the longest datagram that is read whole: the service manager's own limit.
	notifyMax = 4096
)

// notifyAddress is the service manager's socket, "" for none.
func notifyAddress() string { return os.Getenv("NOTIFY_SOCKET") }

// addNotify gives the container the directory that will have its socket.
func (p *prepared) addNotify(r *Runtime, id string) {
	if notifyAddress() == "" || p.spec.Process == nil {
		return
	}
	p.notify = true
	p.spec.Mounts = append(p.spec.Mounts, specs.Mount{Destination: notifyContainer, Source: filepath.Join(r.Root, id, notifyDir),
		Options: []string{"bind", "nosuid", "noexec", "nodev", "ro"}})
	p.spec.Process.Env = append(p.spec.Process.Env, "NOTIFY_SOCKET="+notifyContainer+"/"+notifyName)
}

// makeNotify makes the directory, and for run the socket.
func (k *creation) makeNotify() (err error) {
	if !k.notify {
		return nil
	}
	dir := k.c.Path(notifyDir)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("make directory for NOTIFY_SOCKET: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask
		return fmt.Errorf("make directory for NOTIFY_SOCKET: %w", err)
	}
	if k.starts {
		k.proxy, err = listenNotify(k.c)
	}
	return err
}

// notifyProxy is the container's socket.
type notifyProxy struct{ socket *os.File }

// listenNotify makes the container's socket, to which every user of the container may write.
func listenNotify(c *state.Container) (*notifyProxy, error) {
	path := c.Path(notifyDir + "/" + notifyName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // of a start that failed
		return nil, fmt.Errorf("make socket for NOTIFY_SOCKET: %w", err)
	}
	socket, err := unixsock.ListenDatagram(path)
	if err != nil {
		return nil, fmt.Errorf("make socket for NOTIFY_SOCKET: %w", err)
	}
	if err := os.Chmod(path, 0o777); err != nil {
		socket.Close()
		return nil, fmt.Errorf("make socket for NOTIFY_SOCKET: %w", err)
	}
	return &notifyProxy{socket}, nil
}

// startNotify is listenNotify for start. A container that was created without NOTIFY_SOCKET has no way to notify anyone.
func (r *Runtime) startNotify(c *state.Container) (*notifyProxy, error) {
	if notifyAddress() == "" {
		return nil, nil
	}
	if _, err := os.Lstat(c.Path(notifyDir)); errors.Is(err, os.ErrNotExist) {
		r.Warn("NOTIFY_SOCKET is ignored: it was not set when the container was created")
		return nil, nil
	}
	return listenNotify(c)
}

// close closes the socket; n may be nil.
func (n *notifyProxy) close() {
	if n != nil {
		n.socket.Close()
	}
}

// lastWords is how long after the process's end its last message is looked for: it is in the socket already.
const lastWords = 10 * time.Millisecond

// awaitReady waits until the container is ready and passes that on with mainPID, or until its process p ends. The caller
// holds no lock: it may take long. What goes wrong is a warning, since the container runs.
func (n *notifyProxy) awaitReady(ctx context.Context, r *Runtime, p state.Process, mainPID int) {
	if n == nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	scheduler.Concurrent()
	go func() {
		if fd, err := open(p); err == nil {
			defer fd.Close()
			if fd.Wait(ctx) != nil {
				return // not needed any more
			}
		}
		n.socket.SetReadDeadline(time.Now().Add(lastWords))
	}()
	if err := n.pass(mainPID); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		r.Warn(err.Error())
	}
}

// pass waits for READY, and tells the service manager so with the pid of the process to watch.
func (n *notifyProxy) pass(pid int) error {
	ready, err := n.ready()
	if err != nil {
		return err
	}
	manager, err := unixsock.DialDatagram(notifyAddress())
	if err != nil {
		return fmt.Errorf("pass notification to NOTIFY_SOCKET: %w", err)
	}
	defer manager.Close()
	for _, text := range []string{ready + "\n", "MAINPID=" + strconv.Itoa(pid) + "\n"} {
		if _, err := manager.WriteString(text); err != nil {
			return fmt.Errorf("pass notification to NOTIFY_SOCKET: %w", err)
		}
	}
	return barrier(manager)
}

// ready reads datagrams until one has a line that begins with READY= and returns that line. Descriptors that come with a
// datagram are closed by the kernel.
func (n *notifyProxy) ready() (string, error) {
	buf := make([]byte, notifyMax)
	for {
		size, err := n.socket.Read(buf)
		if err != nil {
			return "", fmt.Errorf("read notification of the container: %w", err)
		}
		for line := range bytes.SplitSeq(buf[:size], []byte("\n")) {
			if bytes.HasPrefix(line, []byte("READY=")) {
				return string(line), nil
			}
		}
	}
}

// barrier waits until the service manager has processed what it was sent: it closes its end of a pipe then
// (sd_notify_barrier(3)). One that does not know the protocol is waited for until a timeout.
func barrier(manager *os.File) error {
	reader, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	defer reader.Close()
	err = unixsock.SendFD(manager, []byte("BARRIER=1"), int(writer.Fd()))
	writer.Close()
	if err != nil {
		return fmt.Errorf("pass barrier to NOTIFY_SOCKET: %w", err)
	}
	if err := reader.SetReadDeadline(time.Now().Add(barrierTimeout)); err != nil {
		return err
	}
	if _, err := reader.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the service manager at NOTIFY_SOCKET has not answered a barrier in %v", barrierTimeout)
	}
	return nil
}
