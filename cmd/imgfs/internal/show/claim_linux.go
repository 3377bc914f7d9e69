package show

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A claim is to a terminal on which several processes show progress: one at a time. The
// others wait, and may have it for a moment, to print a message. It is for several
// goroutines.
//
// It is a lock on the terminal itself, which ends with its process. Where the terminal
// cannot be locked everybody has it.
type claim struct {
	tty *os.File

	mu   sync.Mutex
	f    *os.File // the terminal, opened once more while it is held
	held bool
}

// These bytes of the terminal are locked: claimed by who draws, asked by who waits. They
// are not read.
const claimed, asked = 0, 1

func newClaim(tty *os.File) *claim { return &claim{tty: tty} }

// open opens the terminal, and reports whether it can be locked.
func (c *claim) open() bool {
	var err error
	c.f, err = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", c.tty.Fd()), os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	return err == nil
}

// close gives up all locks.
func (c *claim) close() {
	c.f.Close()
	c.f, c.held = nil, false
}

// lock locks or unlocks a byte, and reports whether nobody else has locked it.
func (c *claim) lock(kind int16, b int64) bool {
	err := unix.FcntlFlock(c.f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Start: b, Len: 1})
	return err != unix.EAGAIN && err != unix.EACCES
}

// take takes the terminal, if nobody else has it or asks for it, and reports whether this
// process has it.
func (c *claim) take() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held || !c.open() {
		return true
	}
	if c.held = !c.isAsked() && c.lock(unix.F_WRLCK, claimed); !c.held {
		c.close()
		return false
	}
	return true
}

// wanted reports whether this process has the terminal, and another one asks for it.
func (c *claim) wanted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held && c.isAsked()
}

func (c *claim) isAsked() bool {
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: asked, Len: 1}
	return unix.FcntlFlock(c.f.Fd(), unix.F_OFD_GETLK, &l) == nil && l.Type != unix.F_UNLCK
}

// ask takes the terminal, and waits for that no longer than askLimit.
func (c *claim) ask() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held || !c.open() {
		return
	}
	asking := false
	for end := time.Now().Add(askLimit); time.Now().Before(end); time.Sleep(askPause) {
		asking = asking || c.lock(unix.F_WRLCK, asked)
		if c.held = asking && c.lock(unix.F_WRLCK, claimed); c.held {
			c.lock(unix.F_UNLCK, asked)
			return
		}
	}
	c.close()
}

// askLimit is some times as long as a process takes that draws to see that it is asked.
const askLimit, askPause = 5 * showPause, 5 * time.Millisecond

// drop gives the terminal back.
func (c *claim) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held {
		c.close()
	}
}
