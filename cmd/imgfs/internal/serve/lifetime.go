package serve

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
)

// endLimit is how long a command may take to end after a signal.
const endLimit = time.Second

// Signals returns the signals that end imgfs: SIGHUP only if it is not ignored, as
// nohup has it.
func Signals() []os.Signal {
	all := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT}
	if !signal.Ignored(syscall.SIGHUP) {
		all = append(all, syscall.SIGHUP)
	}
	return all
}

// A signalError is the cause of a context that a signal has ended.
type signalError struct{ sig syscall.Signal }

// Error implements error.
func (e *signalError) Error() string { return e.sig.String() + " signal received" }

// Is says that the context was canceled.
func (e *signalError) Is(target error) bool { return target == context.Canceled }

// UntilSignal returns a context that the first of Signals ends; see EndedBy.
func UntilSignal(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, Signals()...)
	go func() {
		select {
		case sig := <-signals:
			n, _ := sig.(syscall.Signal)
			cancel(&signalError{n})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}

// EndedBy returns the signal that has ended a context of UntilSignal.
func EndedBy(ctx context.Context) (sig syscall.Signal, ok bool) {
	var by *signalError
	if !errors.As(context.Cause(ctx), &by) {
		return 0, false
	}
	return by.sig, true
}

// A Lifetime knows whether the process may just end. While it serves a mount it
// must not: that would leave a dead directory. The zero value is not ready for
// use; see NewLifetime.
type Lifetime struct {
	mu      sync.Mutex
	serving bool
	leaving bool
	over    chan struct{} // closed when it has served
}

// NewLifetime returns the lifetime of a process that serves no mount yet.
func NewLifetime() *Lifetime { return &Lifetime{over: make(chan struct{})} }

// Serve says that the process is about to mount. It returns false if the process is
// ending. ended says that the mount is gone.
func (l *Lifetime) Serve() (ended func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serving = !l.leaving
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.serving = false
		close(l.over)
	}), l.serving
}

// leave says that the process is ending. It returns false, and the process must
// stay, while there is a mount.
func (l *Lifetime) leave() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaving = !l.serving
	return l.leaving
}

func (l *Lifetime) isServing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.serving
}

// WatchOver calls do and returns its exit code. After the end of ctx or of a mount it
// waits no longer than a second, and leaves do behind if that hangs in a system
// call. Then it calls interrupted and returns failure's code, unless a mount has been
// served to its end.
func (l *Lifetime) WatchOver(ctx context.Context, do, failure func() int, interrupted func()) int {
	done := make(chan int, 1)
	go func() { done <- do() }()
	select {
	case code := <-done:
		return code
	case <-l.over:
	case <-ctx.Done():
	}
	const step = endLimit / 20
	for left := endLimit; left > 0 || !l.leave(); left -= step {
		select {
		case code := <-done:
			return code
		case <-time.After(step):
		}
		if l.isServing() {
			left = endLimit
		}
	}
	select {
	case <-l.over:
		return cli.ExitOK // a mount has been served to its end
	default:
		briefly(interrupted)
		return failure()
	}
}

// briefly calls do, and does not wait for it if it hangs, such as in a write to a
// terminal that is stopped.
func briefly(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
	case <-time.After(100 * time.Millisecond):
	}
}
