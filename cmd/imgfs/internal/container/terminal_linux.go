package container

import (
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// A terminal is the user's, while it shows that of a container.
type terminal struct {
	user   *os.File
	master *os.File // the container's side
	modes  *term.State
	sizes  chan os.Signal
	shown  chan struct{} // closed when there is no more to show
	once   sync.Once
}

// newTerminal connects the user's terminal with a container's: bytes go through as they
// are, Ctrl-C and Ctrl-Z among them. in is nil if nothing is to be read: the terminal then
// stays as it is. A size that changes is passed on.
func newTerminal(in, out, master *os.File, s *stdio) (*terminal, error) {
	t := &terminal{user: in, master: master, sizes: make(chan os.Signal, 1), shown: make(chan struct{})}
	if in != nil {
		var err error
		if t.modes, err = term.MakeRaw(int(in.Fd())); err != nil {
			master.Close()
			return nil, err
		}
		go func() { _, _ = io.Copy(master, in) }()
	}
	signal.Notify(t.sizes, syscall.SIGWINCH)
	t.resize(in, out)
	go func() {
		for range t.sizes {
			t.resize(in, out)
		}
	}()
	go func() {
		defer close(t.shown)
		s.copy(out, master) // the end is EIO: nobody has the other side
	}()
	return t, nil
}

// resize gives the container's terminal the size of the user's.
func (t *terminal) resize(in, out *os.File) {
	for _, f := range []*os.File{in, out} {
		if f == nil {
			continue
		}
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil {
			_ = unix.IoctlSetWinsize(int(t.master.Fd()), unix.TIOCSWINSZ, size)
			return
		}
	}
}

// restore shows the last of what the container has written, and gives the terminal its
// modes back. Twice does no harm.
func (t *terminal) restore() {
	t.once.Do(func() {
		select {
		case <-t.shown:
		case <-time.After(drainLimit):
		}
		signal.Stop(t.sizes)
		close(t.sizes)
		if t.modes != nil {
			_ = term.Restore(int(t.user.Fd()), t.modes) // if it is gone there is nothing to restore
		}
	})
}

// drainLimit is how long the user's terminal may take to show the last of what was
// written.
const drainLimit = 5 * time.Second
