package holder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A Link is a server's end of what connects it with its holder. When the holder dies it
// starts another. Its methods may be called by several goroutines at a time.
type Link struct {
	cfg    Config // of copies: Device, State and Log are descriptors below
	device int
	state  int
	log    int
	locked int // open as long as this process

	holding sync.Mutex // above mu: one at a time gives files

	mu      sync.Mutex
	sock    *os.File // nil: there is no holder
	pid     int      // of the holder; 0: not known
	why     string   // why there is none
	serving bool
	standby bool
	alone   bool // a standby has lost its holder, and watch has ended
	done    bool
	held    []int

	answers chan string   // to hold
	goes    chan int      // how the other server ended
	ended   chan struct{} // closed when the holder that sock leads to has died
	lost    chan struct{} // closed when a standby has lost its holder, see alone
	over    chan struct{} // closed by Done
}

// watch hears what holders say, and starts another when one has died.
func (l *Link) watch() {
	pause := time.Duration(0)
	for {
		l.mu.Lock()
		sock, ended := l.sock, l.ended
		l.mu.Unlock()
		begun := time.Now()
		if sock != nil {
			l.listen(sock)
			close(ended)
		}
		l.mu.Lock()
		if sock != nil {
			sock.Close()
		}
		l.sock, l.pid = nil, 0
		alone := l.standby
		l.alone = alone
		l.mu.Unlock()
		if alone {
			close(l.lost)
			return
		}
		if time.Since(begun) > steadyAfter {
			pause = 0
		}
		select {
		case <-l.over:
			return
		case <-time.After(pause):
		}
		if !l.again() {
			return
		}
		pause = min(max(2*pause, firstPause), l.relaunch())
	}
}

// steadyAfter is how long a holder must have lived for the next one to be started at
// once.
const steadyAfter = 2 * time.Second

// relaunch is the longest pause between attempts to start a holder.
func (l *Link) relaunch() time.Duration {
	if d := l.cfg.times.relaunch; d > 0 {
		return d
	}
	return time.Second / 2
}

// again starts another holder. It returns false if none is wanted any more.
func (l *Link) again() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		return false
	}
	if l.cfg.Name == "" { // a successor has yet to read it, and a holder listens by it
		return true
	}
	err := l.launch()
	switch before := l.why; {
	case err == nil:
		l.why = ""
		if before != "" {
			l.warnf("the server would be restarted again")
		}
	default:
		l.why = "no holder could be started: " + err.Error()
		if before == "" {
			l.warnf("%s; the mount would not outlive its server; it is tried again", l.why)
		}
	}
	return true
}

func (l *Link) warnf(format string, args ...any) {
	if l.cfg.Warnf != nil {
		l.cfg.Warnf(format, args...)
	}
}

// listen hears what a holder says until that ends.
func (l *Link) listen(sock *os.File) {
	text := make([]byte, maxMessage)
	for {
		n, err := sock.Read(text)
		if err != nil || n == 0 {
			return
		}
		word, rest, _ := strings.Cut(string(text[:n]), " ")
		switch word {
		case "held", "unheld":
			select {
			case l.answers <- word:
			default: // nobody waits any more
			}
		case "go":
			died, err := strconv.Atoi(rest)
			if err != nil {
				died = -1
			}
			l.goes <- died // there is one
		case "terminate":
			if l.cfg.Terminate != nil {
				l.cfg.Terminate()
			} else {
				_ = unix.Kill(os.Getpid(), unix.SIGTERM) // ourselves
			}
		}
	}
}

// say says something to the holder, if there is one: the next one is told by how it is
// started.
func (l *Link) say(text string, files ...int) error {
	if l.sock == nil {
		return ErrNone
	}
	c, err := l.sock.SyscallConn()
	if err != nil {
		return err
	}
	failed := c.Write(func(fd uintptr) bool {
		err = send(int(fd), text, files...)
		return err != unix.EAGAIN
	})
	return errors.Join(failed, err)
}

// holdLimit is how long a holder may take to take files.
const holdLimit = 5 * time.Second

// Hold gives files to the holder, for successors: after those that it has. The caller may
// close its own. The error says that the holder cannot have all of them.
func (l *Link) Hold(files ...*os.File) error {
	l.holding.Lock()
	defer l.holding.Unlock()
	for batch := range slices.Chunk(files, maxFiles) {
		fds, err := dupFiles(batch)
		if err == nil {
			err = l.hold(fds)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// hold gives files to the holder, and returns when it has them. l.holding is held.
func (l *Link) hold(fds []int) error {
	select {
	case <-l.answers: // to somebody who did not wait
	default:
	}
	l.mu.Lock()
	l.held = append(l.held, fds...)
	dead, ended := l.say(fmt.Sprintf("hold %d", len(fds)), fds...) != nil, l.ended
	l.mu.Unlock()
	if dead {
		return nil // the next one is started with them
	}
	var err error
	select {
	case answer := <-l.answers:
		if answer == "held" {
			return nil
		}
		err = fmt.Errorf("the holder cannot have %d more files open", len(fds))
	case <-time.After(holdLimit):
		err = errors.New("the holder does not answer")
	case <-ended: // as above
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = l.held[:len(l.held)-len(fds)]
	closeAll(fds)
	return err
}

// Held returns copies of the files that successors get, in their order: of a successor,
// those that came. They are the caller's.
func (l *Link) Held() ([]*os.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var files []*os.File
	for _, held := range l.held {
		fd, err := dup(held)
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, err
		}
		files = append(files, os.NewFile(uintptr(fd), "held"))
	}
	return files, nil
}

// SetName sets Config.Name, which a successor knows when it has read the state.
func (l *Link) SetName(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cfg.Name = name
}

// Serving says that this process serves.
func (l *Link) Serving() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serving = true
	_ = l.say("serving") // else the next holder is told
	return nil
}

// Ready says that a standby could take over at once.
func (l *Link) Ready() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.say("ready")
}

// AwaitGo waits until the server that a standby is to follow has been ended. died is as in
// Succeed. The error says that nothing comes of it: this process is to end.
func (l *Link) AwaitGo(ctx context.Context) (died int, err error) {
	died = -1
	select {
	case died = <-l.goes:
	case <-ctx.Done():
		return -1, context.Cause(ctx)
	case <-l.lost: // whether the other server is dead, too, its lock tells
		select {
		case died = <-l.goes:
		default:
		}
	}
	if err := l.lock(lockLimit); err != nil {
		return -1, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.standby = false
	if l.alone {
		go l.watch()
	}
	return died, nil
}

// Refuse says why a successor cannot serve, before it ends.
func (l *Link) Refuse(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.say("refuse " + why.Error()) // else nobody is told
}

// endLimit is how long a holder may take to end.
const endLimit = 5 * time.Second

// Done says that the mount is gone: the holder ends. Done waits for that, and removes what
// a holder leaves that is killed.
func (l *Link) Done() {
	l.mu.Lock()
	if l.done {
		l.mu.Unlock()
		return
	}
	l.done = true
	close(l.over)
	_ = l.say("done") // or it is dead
	there, ended, standby, c := l.sock != nil, l.ended, l.standby, l.cfg
	l.mu.Unlock()
	if there && !standby { // a standby is not who ends it
		select {
		case <-ended:
		case <-time.After(endLimit):
		}
	}
	Forget(c.Sockets, c.Name, os.Geteuid())
}

// State tells of the holder.
func (l *Link) State() LinkState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return LinkState{Holder: l.pid, Why: l.why}
}
