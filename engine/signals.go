package engine

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
)

// signals stops the preparation of a container, or once its runtime runs, goes to the runtime, which gives them to the
// container's process.
type signals struct {
	ctx    context.Context // done when a signal came before there was a process
	cancel context.CancelFunc
	queue  chan os.Signal

	mu       sync.Mutex
	first    syscall.Signal
	process  *os.Process
	terminal bool
}

// early are the signals that end a preparation.
var early = []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2}

// catchSignals catches the early signals, except those that the caller ignores (nohup). They stay caught: what comes after
// the container's end must not stop the clean-up.
func catchSignals(ctx context.Context) *signals {
	s := &signals{queue: make(chan os.Signal, 64)}
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.notify(early...)
	go func() {
		for n := range s.queue {
			if n, ok := n.(syscall.Signal); ok {
				s.deliver(n)
			}
		}
	}()
	return s
}

func (s *signals) notify(wanted ...os.Signal) {
	wanted = slices.DeleteFunc(slices.Clone(wanted), signal.Ignored)
	if len(wanted) > 0 {
		signal.Notify(s.queue, wanted...)
	}
}

// catchAll catches every signal but those of the terminal's job control (so that Ctrl-Z stops tare, not the container),
// SIGPIPE (ours alone), SIGCHLD and SIGURG (the Go runtime's), and those of our own faults. Each costs the Go runtime two
// changes of threads, so this is done while the container starts.
func (s *signals) catchAll() {
	var wanted []os.Signal
	for n := syscall.Signal(1); n < 65; n++ {
		switch n {
		case syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGPIPE,
			syscall.SIGCHLD, syscall.SIGURG, syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGILL, syscall.SIGPROF:
		default:
			if !slices.Contains(early, os.Signal(n)) {
				wanted = append(wanted, n)
			}
		}
	}
	s.notify(wanted...)
}

func (s *signals) deliver(n syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case n == syscall.SIGWINCH && (s.terminal || s.process == nil): // the runtime in the foreground has got it too
	case s.process != nil:
		_ = s.process.Signal(n) // fails only when the process has ended
	case n == syscall.SIGCONT || n == syscall.SIGWINCH:
	default:
		if s.first == 0 {
			s.first = n
		}
		s.cancel()
	}
}

// forward sends the signals to p from now on.
func (s *signals) forward(p *os.Process, terminal bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process, s.terminal = p, terminal
	go s.catchAll()
	if s.first != 0 { // came between the last check and the start
		_ = p.Signal(s.first)
	}
}

func (s *signals) caught() syscall.Signal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first
}
