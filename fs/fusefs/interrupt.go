//go:build linux

package fusefs

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	// askSignals is how often a caller is looked at that a signal has come for.
	askSignals = 100 * time.Millisecond
	// askProcess is how often the process of a caller that waits is looked at;
	// which it is is found out soonWaits after the beginning.
	askProcess = 200 * time.Millisecond
	soonWaits  = 20 * time.Millisecond
)

// A caller is the context of a read. It ends when the process that waits for the
// read is to end, or the mount is gone.
//
// The kernel interrupts a request for every signal, and once: at the first.
// Most are none of the read's business, such as those by which the Go runtime
// stops its threads. A program does not expect a read of a file to fail for
// one, and where it is the kernel that reads, for a page that is not in memory,
// it would get SIGBUS or EFAULT. Such a signal waits until the read is done, as
// with other file systems. A caller cannot leave before it has its reply, so it
// is looked at again and again.
//
// The kernel never interrupts reads ahead, even if nobody wants them any more. So
// such a read ends with the process that it was begun for: other processes that
// want the same pages by then ask for them anew.
type caller struct {
	fuse.Context
	gone    func() bool // tells whether the mount is
	threads threads     // in which the caller is one

	mu   sync.Mutex
	done chan struct{} // nil until somebody wants to know; closed at the end
	left chan struct{} // closed when the read is over
	over bool

	dead atomic.Bool // the process is gone
}

var _ context.Context = (*caller)(nil)

// Done implements context.Context.
func (c *caller) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done, c.left = make(chan struct{}), make(chan struct{})
		if c.over {
			close(c.left)
		}
		go c.watch(c.done, c.left)
	}
	return c.done
}

// Err implements context.Context.
func (c *caller) Err() error {
	select {
	case <-c.Cancel:
	default:
		if c.dead.Load() {
			return context.Canceled
		}
		return nil // the usual case takes no goroutine
	}
	select {
	case <-c.Done():
		return context.Canceled
	default:
		return nil
	}
}

// leave says that the read is over.
func (c *caller) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if c.left != nil {
		close(c.left)
	}
}

// watch closes done when the read is to end.
func (c *caller) watch(done chan<- struct{}, left <-chan struct{}) {
	switch c.await(left) {
	case callerLeft:
		return
	case callerEnded:
		c.dead.Store(true)
		close(done)
		return
	}
	for !c.gone() && c.threads.signalsOf(c.Pid).wait() {
		select {
		case <-time.After(askSignals):
		case <-left:
			return
		}
	}
	close(done)
}

// These are the ways in which a caller ends.
const (
	callerLeft = iota
	callerInterrupted
	callerEnded
)

// await waits for what becomes of a caller.
func (c *caller) await(left <-chan struct{}) int {
	process, pause := 0, soonWaits
	for {
		select {
		case <-c.Cancel:
			return callerInterrupted
		case <-left:
			return callerLeft
		case <-time.After(pause):
		}
		if pause == soonWaits {
			process, pause = c.threads.processOf(c.Pid), askProcess
		}
		if c.threads.hasEnded(process) {
			return callerEnded
		}
	}
}

// signals are those of a thread, as sets: bit 0 is signal 1.
type signals struct {
	seen    bool   // else nothing is known
	pending uint64 // sent, not taken yet, and neither blocked nor ignored
	caught  uint64 // that the program handles
}

// wait reports whether there is nothing that a read has to end for. There is if
// nothing is known.
//
// A signal that kills a process without a dump of its memory leaves SIGKILL with
// each of its threads, unless it is traced.
func (s signals) wait() bool {
	const killed = 1 << (unix.SIGKILL - 1)
	dumping := signalSet(unix.SIGQUIT, unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGXCPU, unix.SIGXFSZ, unix.SIGSYS)
	// People send these to a program that is to stop what it does.
	meant := signalSet(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM)
	return s.seen && s.pending&(killed|meant|dumping&^s.caught) == 0
}

func signalSet(all ...unix.Signal) (set uint64) {
	for _, sig := range all {
		set |= 1 << (sig - 1)
	}
	return set
}
