// Package console connects a container's terminal with whoever talks to it: it hands the master to a caller's socket, or
// copies between it and our own terminal.
package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tare-oci/tare/internal/sys/pty"
	"github.com/tare-oci/tare/internal/sys/unixsock"
)

// SendConsole sends the master of a container's terminal to the caller who listens on the unix stream socket at path: one
// message with the descriptor, whose payload is the terminal's name (runc's --console-socket). The master stays the caller's
// to close.
func SendConsole(path string, master *os.File) error {
	sock, err := unixsock.Dial(path)
	if err != nil {
		return fmt.Errorf("send terminal to the console socket: %w", err)
	}
	defer sock.Close()
	if err := unixsock.SendFD(sock, []byte(master.Name()), int(master.Fd())); err != nil {
		return fmt.Errorf("send terminal to the console socket: %w", err)
	}
	return nil
}

// idle is how long the output of a terminal is awaited after the process on it has exited and something else keeps the
// terminal open.
const idle = 100 * time.Millisecond

// HostTerminal returns the terminal of the person in front of this process: one of the standard streams, or the
// controlling terminal if all of them are redirected. The caller closes a file that is not one of the streams. Without
// a terminal it gives the kernel's error, as runc does: a process in the foreground would wait for ever on a terminal
// without input.
func HostTerminal() (*os.File, error) {
	for _, f := range []*os.File{os.Stderr, os.Stdout, os.Stdin} {
		if pty.IsTerminal(f) {
			return f, nil
		}
	}
	return os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_NOCTTY, 0)
}

// HostSize returns the size of HostTerminal.
func HostSize() (pty.Size, error) {
	host, err := HostTerminal()
	if err != nil {
		return pty.Size{}, err
	}
	defer closeHost(host)
	return pty.GetSize(host)
}

// closeHost closes what HostTerminal has opened.
func closeHost(f *os.File) {
	if f != nil && f != os.Stdin && f != os.Stdout && f != os.Stderr {
		f.Close()
	}
}

// Foreground copies stdin to the terminal's master and its output to stdout. The terminal host, if there is one, is in
// raw mode meanwhile, and its size is the container terminal's size, now and at each SIGWINCH.
//
// The caller cancels ctx when the container's process has exited. Foreground returns once the output is drained: at the
// end of file, when the last descriptor of the slave is closed, or when nothing more came for 100 ms after ctx. An end
// of file on stdin is passed on as the terminal's end-of-input character; output goes on. The terminal's settings are
// as before when it returns. A reading of stdin may stay behind in a goroutine: a terminal's read cannot be broken off.
// master stays the caller's to close; it becomes non-blocking.
func Foreground(ctx context.Context, master, host, stdin, stdout *os.File) error {
	m, err := pty.DupNonblock(master)
	if err != nil {
		return err
	}
	defer m.Close()
	if host != nil {
		settings, err := pty.MakeRaw(host)
		if err != nil {
			return err
		}
		defer pty.Restore(host, settings)
		stop, err := followSize(m, host)
		if err != nil {
			return err
		}
		defer stop()
	}
	go copyIn(m, stdin)
	return copyOut(ctx, m, stdout)
}

// followSize gives master the size of the terminal from, now and at each SIGWINCH until stop is called.
func followSize(master, from *os.File) (stop func(), err error) {
	changed := make(chan os.Signal, 1) // one is enough: the size is read after the signal
	signal.Notify(changed, syscall.SIGWINCH)
	if err := copyWindow(master, from); err != nil {
		signal.Stop(changed)
		return nil, err
	}
	done := make(chan struct{})
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for {
			select {
			case <-changed:
				if copyWindow(master, from) != nil {
					return // the terminal is gone: hung up
				}
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(changed)
		close(done)
		<-finished
	}, nil
}

func copyWindow(to, from *os.File) error {
	size, err := pty.GetSize(from)
	if err != nil {
		return err
	}
	return pty.SetSize(to, size)
}

// copyIn ends at stdin's end, or when the terminal is gone.
func copyIn(master, stdin *os.File) {
	buf := make([]byte, 4096)
	last := byte('\n')
	for {
		n, err := stdin.Read(buf)
		if n > 0 {
			last = buf[n-1]
			if _, err := master.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			break
		}
	}
	settings, err := pty.Get(master)
	if err != nil {
		return
	}
	if c, lines := settings.EOF(); lines {
		end := []byte{c}
		if last != '\n' {
			end = []byte{c, c} // the first only ends the line that was begun
		}
		master.Write(end) // the process may be gone already, and then needs no end
	}
}

func copyOut(ctx context.Context, master, stdout *os.File) error {
	stop := context.AfterFunc(ctx, func() { master.SetReadDeadline(time.Now().Add(idle)) })
	defer stop()
	buf := make([]byte, 32<<10)
	var failed error
	for {
		n, err := master.Read(buf)
		if n > 0 && failed == nil {
			// When nobody takes the output, the process must not hang on it: keep reading.
			if _, err := stdout.Write(buf[:n]); err != nil {
				failed = fmt.Errorf("write terminal output: %w", err)
			}
		}
		switch {
		case err == nil:
			if ctx.Err() != nil {
				master.SetReadDeadline(time.Now().Add(idle))
			}
		case err == io.EOF, errors.Is(err, syscall.EIO), errors.Is(err, os.ErrDeadlineExceeded):
			return failed
		default:
			return errors.Join(failed, fmt.Errorf("read terminal output: %w", err))
		}
	}
}
