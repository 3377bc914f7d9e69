package container

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// forwarded are the signals that are passed on to the container. The others are the
// kernel's own, those of job control, which stop and continue the command itself, and
// those that Go's programs use.
func forwarded() []os.Signal {
	all := []os.Signal{unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM}
	if !signal.Ignored(unix.SIGHUP) {
		all = append(all, unix.SIGHUP)
	}
	const first, last = 34, 64 // the real-time signals that glibc does not keep
	for n := first; n <= last; n++ {
		all = append(all, syscall.Signal(n))
	}
	return all
}

// forwardSignals passes signals on to the container, until stop is called.
func (s *session) forwardSignals() (stop func()) {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, forwarded()...)
	go func() {
		for sig := range signals {
			if n, ok := sig.(syscall.Signal); ok {
				_ = s.line.send(message{Signal: int(n)}, nil) // if it is gone there is nobody to get it
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
	}
}

// isEnding reports whether a signal is one that asks programs to end.
func isEnding(sig syscall.Signal) bool {
	return sig == unix.SIGINT || sig == unix.SIGTERM || sig == unix.SIGQUIT || sig == unix.SIGHUP
}
