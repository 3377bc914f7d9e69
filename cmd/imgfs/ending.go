package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs/fusefs"
)

const (
	// endLimit is how long a command may take to end after a signal.
	endLimit = time.Second
	// defaultGrace is how long a mount's server serves on after a signal to
	// those who use the tree: less than the 90 s after which systemd kills it.
	// docker kills after 10 s, which then leaves no dead directory either.
	defaultGrace = 30 * time.Second
	// tryUnmount is how long unmounting may take after a signal.
	tryUnmount = 2 * time.Second
	// tryAgain is how often it is tried again if it fails.
	tryAgain = 5 * time.Second
)

// endings returns the signals that end imgfs. nohup has SIGHUP ignored.
func endings() []os.Signal {
	all := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT}
	if !signal.Ignored(syscall.SIGHUP) {
		all = append(all, syscall.SIGHUP)
	}
	return all
}

// A lifetime tells whether the process may just end, as a mount must not: that
// would leave a dead directory.
type lifetime struct {
	mu      sync.Mutex
	serving bool
	leaving bool
	over    chan struct{} // closed when it has served
}

func newLifetime() *lifetime { return &lifetime{over: make(chan struct{})} }

// serve says that there is a mount from now on, unless the process is ending. ended
// says that there is not any more.
func (l *lifetime) serve() (ended func(), ok bool) {
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

// leave says that the process ends, unless there is a mount.
func (l *lifetime) leave() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaving = !l.serving
	return l.leaving
}

func (l *lifetime) isServing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.serving
}

// watchOver does something until its end, but no longer than endLimit after a
// signal or the end of a mount: a system call on a server that hangs is left
// behind.
func (e *env) watchOver(ctx context.Context, do func() int) int {
	done := make(chan int, 1)
	go func() { done <- do() }()
	code := cli.ExitFailure
	select {
	case code := <-done:
		return code
	case <-e.life.over:
		code = cli.ExitOK
	case <-ctx.Done():
	}
	const step = endLimit / 20
	for left := endLimit; left > 0 || !e.life.leave(); left -= step {
		select {
		case code := <-done:
			return code
		case <-time.After(step):
		}
		if e.life.isServing() {
			left = endLimit
		}
	}
	if code != cli.ExitOK {
		briefly(func() { e.Error(context.Canceled) })
	}
	return code
}

// briefly does something that may hang, such as to write to a terminal that is
// stopped, and does not wait for it then.
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

// A closer ends a mount that is served by this process.
type closer struct {
	srv   *fusefs.Server
	dir   string
	grace time.Duration
	say   func(format string, args ...any)
	done  chan struct{} // closed when the mount is gone
}

func newCloser(srv *fusefs.Server, dir string, grace time.Duration, say func(format string, args ...any)) *closer {
	c := &closer{srv: srv, dir: dir, grace: grace, done: make(chan struct{})}
	c.say = func(format string, args ...any) { briefly(func() { say(format, args...) }) }
	go func() {
		srv.Wait()
		close(c.done)
	}()
	return c
}

// meanwhile does something that may hang while the mount is served, such as to
// write to a pipe that nobody reads. It is left behind when the mount, or ctx,
// ends.
func (c *closer) meanwhile(ctx context.Context, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	case <-c.done:
	case <-c.srv.Orphaned():
	}
	return nil
}

// untilUnmounted serves until somebody unmounts, or ctx ends, or nobody can get
// at the tree any more.
func (c *closer) untilUnmounted(ctx context.Context) error {
	select {
	case <-c.done:
		return nil
	case <-c.srv.Orphaned():
		return c.try(c.srv.Detach, nil)
	case <-ctx.Done():
	}
	return c.end()
}

// end unmounts. While somebody uses the tree it is taken out of the directory
// tree and served on, until nobody does, the grace is over or there is another
// signal: an ending that cut off who reads would leave a dead directory.
func (c *closer) end() error {
	again := make(chan os.Signal, 1)
	signal.Notify(again, endings()...)
	defer signal.Stop(again)
	err := c.try(c.srv.Unmount, again)
	if !errors.Is(err, fusefs.ErrBusy) {
		return c.detached(err, again)
	}
	if failed := c.try(c.srv.Detach, again); failed != nil {
		return c.detached(failed, again)
	}
	c.say("%v; detached: it ends when unused, in %s at the latest; another Ctrl-C or signal ends it now", err, c.grace)
	return c.detached(nil, again)
}

// try has the mount taken away, for tryUnmount or until there is another signal,
// which may be nil for none. That one is there for who comes next.
func (c *closer) try(take func(context.Context) error, again chan os.Signal) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), tryUnmount, fusefs.ErrNoAnswer)
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- take(ctx) }()
	select {
	case err := <-result:
		return err
	case sig := <-again:
		select {
		case again <- sig:
		default: // there has been one more
		}
		cancel()
		return <-result
	}
}

// detached waits for the last user of the tree, if err is nil. Else it could not
// be taken out of the directory tree, which is tried again.
func (c *closer) detached(err error, again chan os.Signal) error {
	if errors.Is(err, context.Canceled) {
		return c.now(err) // there was another signal before it was known what became of the first
	}
	grace := time.After(c.grace)
	if err != nil {
		c.say("%v; it is served on; another Ctrl-C or signal ends it and leaves %s dead", err, c.dir)
	}
	for {
		var retry, last <-chan time.Time = nil, grace
		if err != nil {
			retry, last = time.After(tryAgain), nil
		}
		select {
		case <-c.done:
			return nil
		case <-c.srv.Orphaned():
			return err
		case <-last:
			c.say("%s: ended though in use: %s are over", c.dir, c.grace)
			c.abandon()
			return nil
		case <-retry:
			if err = c.try(c.srv.Detach, again); err == nil {
				grace = time.After(c.grace)
			}
		case <-again:
			return c.now(err)
		}
	}
}

// now ends the mount whoever uses it.
func (c *closer) now(err error) error {
	if err != nil {
		ctx, cancel := context.WithTimeout(context.Background(), endLimit/2)
		defer cancel()
		if err := c.srv.Detach(ctx); err != nil {
			return fmt.Errorf("%w; %s is left dead", err, c.dir)
		}
	}
	c.say("%s: ended though in use", c.dir)
	c.abandon()
	return nil
}

// abandon takes away what bind mounts have made of the mount: it would be dead.
func (c *closer) abandon() {
	ctx, cancel := context.WithTimeout(context.Background(), endLimit/4)
	defer cancel()
	if err := c.srv.DetachAll(ctx); err != nil {
		c.say("%v", err)
	}
}
