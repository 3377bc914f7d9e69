package holder

import (
	"encoding/binary"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// ours are the signals that do not end a holder.
var ours = []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE, unix.SIGALRM}

// What is added to keeper.signals for a signal.
const (
	addHangup    = 1
	addTerminate = 1 << 32
)

// listenToSignals has signals wake poll(2).
func (h *keeper) listenToSignals() {
	if h.heard == nil {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			fd = -1 // signals do nothing
		}
		h.signals, h.heard = fd, make(chan os.Signal, 8)
		go func() {
			for sig := range h.heard {
				switch sig {
				case unix.SIGHUP:
					add(fd, addHangup)
				case unix.SIGTERM:
					add(fd, addTerminate)
				}
			}
		}()
	}
	signal.Notify(h.heard, ours...)
}

// add adds to an eventfd.
func add(fd int, n uint64) {
	_, _ = unix.Write(fd, binary.NativeEndian.AppendUint64(nil, n)) // it takes 2^32 of them
}

// onSignal does what signals ask for.
func (h *keeper) onSignal() {
	var b [8]byte
	if _, err := unix.Read(h.signals, b[:]); err != nil {
		return
	}
	n := binary.NativeEndian.Uint64(b[:])
	if n%addTerminate != 0 {
		h.listen()
	}
	if n >= addTerminate {
		h.terminate = true
		h.passTermination()
	}
}

// passTermination tells the server that it is to unmount: a successor that does not serve
// yet could not, and is told when it does.
func (h *keeper) passTermination() {
	if h.terminate && h.server != nil && !h.server.serving.IsZero() && send(h.server.sock, "terminate") == nil {
		h.terminate = false
	}
}

// asInherited ignores the signals that the first server ignored; a program that is started
// then does, too. again ends that.
func (h *keeper) asInherited() (again func()) {
	if len(h.ignored) > 0 { // none would be all
		signal.Ignore(h.ignored...)
	}
	return func() { signal.Notify(h.heard, ours...) }
}
