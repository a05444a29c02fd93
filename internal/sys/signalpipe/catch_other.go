//go:build !amd64 && !arm64

package signalpipe

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// catch has a goroutine write the signals to descriptor fd.
func catch(fd int) (restore func()) {
	c := make(chan os.Signal, 64)
	var list []os.Signal
	for n := syscall.Signal(1); n <= 64; n++ {
		if skipped>>n&1 == 0 {
			list = append(list, n)
		}
	}
	signal.Ignore(syscall.SIGPIPE)
	signal.Notify(c, list...)
	go func() {
		for sig := range c {
			if n, ok := sig.(syscall.Signal); ok {
				unix.Write(fd, []byte{byte(n)})
			}
		}
	}()
	return func() { signal.Reset() }
}
