package serve

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/fs/overlayfs"
)

const (
	// DefaultGrace is how long the process serves on after a signal while the tree
	// is in use: less than the 90 s after which systemd kills it. docker kills after
	// 10 s, which then leaves no dead directory either.
	DefaultGrace = 30 * time.Second
	// tryUnmount is how long unmounting may take after a signal.
	tryUnmount = 2 * time.Second
	// RetryAfter is how long after a failure unmounting is tried again.
	RetryAfter = 5 * time.Second
)

// A closer ends a mount that is served by this process.
type closer struct {
	srv server
	// With a writable view these are closed when it, or the image, is mounted no longer,
	// else both are nil.
	gone, displaced <-chan struct{}
	dir             string
	grace           time.Duration
	warnf           func(format string, args ...any)
	// left, if not nil, reports whether this process is to end without unmounting.
	left func() bool
	done chan struct{} // closed when the mount is gone
}

func newCloser(srv *fusefs.Server, view *overlayfs.Mount, dir string, grace time.Duration, warnf func(format string, args ...any)) *closer {
	c := &closer{srv: srv, dir: dir, grace: grace, done: make(chan struct{})}
	if view != nil {
		c.srv, c.gone, c.displaced = viewServer{srv, view}, view.Done(), srv.Displaced()
	}
	c.warnf = func(format string, args ...any) { briefly(func() { warnf(format, args...) }) }
	go func() {
		srv.Wait()
		close(c.done)
	}()
	return c
}

// meanwhile calls do while the mount is served. do may hang, such as in a write to
// a pipe that nobody reads: it is left behind when the mount or ctx ends.
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
// at the tree any more. Whoever unmounts the writable view or the image wants both to
// be unmounted.
func (c *closer) untilUnmounted(ctx context.Context) error {
	for retry := (<-chan time.Time)(nil); ; {
		select {
		case <-c.done:
			return nil
		case <-c.srv.Orphaned():
			return c.try(c.srv.Detach, nil)
		case <-ctx.Done():
			return c.end()
		case <-c.gone:
		case <-c.displaced:
		case <-retry:
		}
		c.gone, c.displaced, retry = nil, nil, nil
		if err := c.try(c.srv.Detach, nil); err != nil {
			c.warnf("%v", err)
			retry = time.After(RetryAfter)
		}
	}
}

// end unmounts. A tree in use is taken out of the directory tree and served on,
// until nobody uses it, the grace is over or there is another signal: ending at
// once would cut off readers and leave a dead directory.
func (c *closer) end() error {
	if c.left != nil && c.left() {
		os.Exit(cli.ExitOK) // as if it were killed: what is deferred would unmount
	}
	again := make(chan os.Signal, 1)
	signal.Notify(again, Signals()...)
	defer signal.Stop(again)
	notify(notifyStopping)
	err := c.try(c.srv.Unmount, again)
	if !errors.Is(err, fusefs.ErrBusy) {
		return c.detached(err, again)
	}
	if failed := c.try(c.srv.Detach, again); failed != nil {
		return c.detached(failed, again)
	}
	notify(notifyStatus("unmounted; served on to those who use it"), notifyLonger(c.grace))
	c.warnf("%v; detached: it ends when unused, in %s at the latest; another Ctrl-C or signal ends it now", err, c.grace)
	return c.detached(nil, again)
}

// try calls take, which takes the mount away, and lets it run for tryUnmount or
// until there is a signal in again, which may be nil. The signal stays in again.
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

// detached waits until nobody uses the tree any more. If err is not nil the tree
// could not be taken out of the directory tree, and detached goes on trying.
func (c *closer) detached(err error, again chan os.Signal) error {
	if errors.Is(err, context.Canceled) {
		return c.now(err) // another signal came before the first had an effect
	}
	grace := time.After(c.grace)
	if err != nil {
		c.warnf("%v; it is served on; another Ctrl-C or signal ends it and leaves %s dead", err, c.dir)
	}
	for {
		var retry, last <-chan time.Time = nil, grace
		if err != nil {
			retry, last = time.After(RetryAfter), nil
		}
		select {
		case <-c.done:
			return nil
		case <-c.srv.Orphaned():
			return err
		case <-last:
			c.warnf("%s: ended though in use: %s are over", c.dir, c.grace)
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

// now ends the mount though it is in use.
func (c *closer) now(err error) error {
	if err != nil {
		ctx, cancel := context.WithTimeout(context.Background(), endLimit/2)
		defer cancel()
		if err := c.srv.Detach(ctx); err != nil {
			return fmt.Errorf("%w; %s is left dead", err, c.dir)
		}
	}
	c.warnf("%s: ended though in use", c.dir)
	c.abandon()
	return nil
}

// abandon takes away the bind mounts of the mount: they would be dead.
func (c *closer) abandon() {
	ctx, cancel := context.WithTimeout(context.Background(), endLimit/4)
	defer cancel()
	if err := c.srv.DetachAll(ctx); err != nil {
		c.warnf("%v", err)
	}
}
