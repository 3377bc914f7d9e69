package explore

import (
	"errors"
	"os"
	"sync/atomic"
	"time"

	"github.com/gdamore/tcell/v3"
	"golang.org/x/term"
)

// A keptTTY is the terminal of the process. Unlike that of tcell it loses nothing that is
// typed: not what came before Start, and not what comes while it ends.
type keptTTY struct {
	tcell.Tty // for what it does when the size changes

	f       atomic.Pointer[os.File] // nil while it is not in use
	saved   *term.State
	reads   chan struct{} // has one when Read has nothing, and waits for Drain
	drained chan struct{} // closed by Drain
}

// newTTY returns the terminal.
func newTTY() (tcell.Tty, error) {
	inner, err := tcell.NewDevTty()
	if err != nil {
		return nil, err
	}
	return &keptTTY{Tty: inner}, nil
}

// control calls do with the descriptor. After File.Fd nothing would end a Read.
func control(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = do(int(fd)) }); err != nil {
		return err
	}
	return failed
}

// Start implements tcell.Tty.
func (t *keptTTY) Start() error {
	if t.f.Load() != nil {
		return nil
	}
	f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = control(f, func(fd int) (err error) {
		t.saved, err = term.MakeRaw(fd)
		return err
	})
	if err != nil {
		f.Close()
		return err
	}
	t.reads, t.drained = make(chan struct{}, 1), make(chan struct{})
	t.f.Store(f)
	return nil
}

// Read implements tcell.Tty.
func (t *keptTTY) Read(p []byte) (int, error) {
	reads, drained := t.reads, t.drained
	n, err := t.f.Load().Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		reads <- struct{}{}
		<-drained
	}
	return n, err
}

// pause is called before Drain. It has Read wait, and what has been read go its way: tcell
// drops it from Drain on.
func (t *keptTTY) pause() {
	if t.f.Load().SetReadDeadline(time.Now()) != nil {
		return
	}
	select {
	case <-t.reads:
	case <-time.After(leaveLimit): // nobody reads: the terminal is gone
	}
}

// Drain implements tcell.Tty: it ends Read.
func (t *keptTTY) Drain() error {
	err := t.f.Load().SetReadDeadline(time.Now())
	close(t.drained)
	return err
}

// Stop implements tcell.Tty.
func (t *keptTTY) Stop() error {
	f := t.f.Swap(nil)
	err := control(f, func(fd int) error { return term.Restore(fd, t.saved) })
	t.NotifyResize(nil)
	f.Close()
	return err
}

// WindowSize implements tcell.Tty.
func (t *keptTTY) WindowSize() (size tcell.WindowSize, err error) {
	if f := t.f.Load(); f != nil {
		err = control(f, func(fd int) (err error) {
			size.Width, size.Height, err = term.GetSize(fd)
			return err
		})
		if err == nil && size.Width > 0 && size.Height > 0 {
			return size, nil
		}
	}
	return t.Tty.WindowSize()
}

// Write implements tcell.Tty.
func (t *keptTTY) Write(p []byte) (int, error) { return t.f.Load().Write(p) }

// Close implements tcell.Tty. Stop has closed it.
func (t *keptTTY) Close() error { return nil }
