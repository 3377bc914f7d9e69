package holder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Client asks a holder something. Each question is a connection of its own: a Client
// holds nothing open, and may be used by several goroutines at a time.
type Client struct {
	pid      int
	owner    int           // who has mounted
	path     string        // of its socket
	patience time.Duration // the holder's
}

// dialLimit is how long looking for a holder that answers may take.
const dialLimit = 5 * time.Second

// Dial finds the holder of a mount by its device ("0:39"), and returns what it says. It
// takes no process but owner's, who has mounted, and root's: everybody may give theirs such
// words. The error is ErrNone if there is none, and a *SilentError if there are some and
// none answers.
func Dial(ctx context.Context, device string, owner int) (*Client, Status, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, dialLimit, errNoAnswer)
	defer cancel()
	all, err := holdersOf(ctx, device, owner)
	if err != nil {
		return nil, Status{}, err
	}
	var silent error
	for _, c := range all {
		if p, ok := lookAt(c.pid); ok && p.stopped { // and would not answer
			if silent == nil {
				silent = &SilentError{PID: c.pid, Stopped: true, Err: errNoAnswer}
			}
			continue
		}
		status, err := c.Status(ctx)
		switch {
		case err == nil && status.State != StateGone: // of a mount that had this number before
			return c, status, nil
		case err != nil && silent == nil && !c.ended():
			p, _ := lookAt(c.pid)
			silent = &SilentError{PID: c.pid, Stopped: p.stopped, Err: err}
		}
	}
	switch {
	case ctx.Err() != nil && context.Cause(ctx) != errNoAnswer:
		return nil, Status{}, context.Cause(ctx)
	case silent != nil:
		return nil, Status{}, silent
	}
	return nil, Status{}, ErrNone
}

// Pid is the holder's process.
func (c *Client) Pid() int { return c.pid }

// askLimit is how long a holder may take to answer what it knows at once.
const askLimit = 2 * time.Second

// Status asks how the mount is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askLimit, errNoAnswer)
	defer cancel()
	for {
		text, err := c.ask(ctx, "status")
		switch {
		case err == nil:
			return c.parseStatus(text)
		case err != errEnded || c.ended():
			return Status{}, err
		}
		select {
		case <-ctx.Done():
			return Status{}, err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// errEnded says that a holder ended before it answered, or executed itself anew.
var errEnded = errors.New("what would restart its server has ended")

// errNoAnswer says that a holder does not answer.
var errNoAnswer = errors.New("what would restart its server does not answer")

// parseStatus parses what keeper.status has made. A server is believed that is a process of
// who has mounted.
func (c *Client) parseStatus(text string) (s Status, err error) {
	s, err = parseStatus(text)
	s.Holder = c.pid
	if p, ok := lookAt(s.Server); !ok || !p.isOf(c.owner) {
		s.Server = 0
	}
	return s, err
}

func parseStatus(text string) (s Status, err error) {
	text, s.Reason, _ = strings.Cut(text, " reason=")
	for _, field := range strings.Fields(text) {
		key, value, _ := strings.Cut(field, "=")
		n, bad := strconv.Atoi(value)
		switch key {
		case "status":
		case "holder":
			s.Holder = n
		case "server":
			s.Server = n
		case "restarts":
			s.Restarts = n
		case "upgrades":
			s.Upgrades = n
		case "died":
			s.Died = n
		case "last":
			s.LastRestart = time.Unix(int64(n), 0)
		case "state":
			s.State, bad = value, nil
		default:
			bad = nil // of a later version
		}
		if bad != nil && key != "status" {
			return s, fmt.Errorf("%q is not what a holder says", field)
		}
	}
	return s, nil
}

// Upgrade puts another program in the server's place, and returns when that serves. If it
// refuses to, ends, or is not ready within the holder's patience, the error says why, and
// the server is as it was. So it is when ctx ends before, or the holder says nothing for
// longer than that.
func (c *Client) Upgrade(ctx context.Context, program *os.File) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.patience+upgradeSpare, errNoAnswer)
	defer cancel()
	fd, err := dupFile(program)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = c.ask(ctx, "upgrade", fd)
	return err
}

// upgradeSpare is how long a holder may take longer than its patience to say what became of
// an upgrade, and maxPatience how long a patience is believed.
const (
	upgradeSpare = 10 * time.Second
	maxPatience  = 5 * time.Minute
)

// End ends the holder of a mount that nobody serves: for unmounting that.
func (c *Client) End(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, askLimit, errNoAnswer)
	defer cancel()
	_, err := c.ask(ctx, "end")
	return err
}

// ask asks a question and returns the answer. What the holder refuses is an error.
func (c *Client) ask(ctx context.Context, text string, files ...int) (string, error) {
	fd, err := c.connect(ctx)
	if err != nil {
		return "", err
	}
	sock := os.NewFile(uintptr(fd), "holder")
	defer sock.Close()
	defer context.AfterFunc(ctx, func() { _ = sock.SetDeadline(time.Now()) })()
	switch err := send(fd, text, files...); err {
	case nil:
	case unix.EPIPE, unix.ECONNRESET:
		return "", errEnded
	default:
		return "", err
	}
	answer := make([]byte, maxMessage)
	n, err := sock.Read(answer)
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", errEnded
	}
	word, rest, _ := strings.Cut(string(answer[:n]), " ")
	if word == "refused" || word == "failed" {
		return "", &RefusedError{Reason: rest, Failed: word == "failed"}
	}
	return string(answer[:n]), nil
}

// connect connects with the holder. If its socket is gone it is told to make it again.
func (c *Client) connect(ctx context.Context) (int, error) {
	if c.path == "" {
		return -1, errors.New("its holder has no socket")
	}
	fd, err := c.connectOnce()
	if err != unix.ENOENT && err != unix.ECONNREFUSED {
		return fd, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, askLimit, errNoAnswer)
	defer cancel()
	for asked := false; ; {
		if c.ended() {
			return -1, errEnded
		}
		asked = asked || c.signal(unix.SIGHUP)
		fd, err := c.connectOnce()
		if err != unix.ENOENT && err != unix.ECONNREFUSED {
			return fd, err
		}
		select {
		case <-ctx.Done():
			return -1, context.Cause(ctx)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// ended reports whether the holder has ended.
func (c *Client) ended() bool {
	p, ok := lookAt(c.pid)
	return !ok || p.ended
}

// signal sends a signal to the holder, and reports whether it did: one that has no name yet
// would be ended by it.
func (c *Client) signal(sig unix.Signal) bool {
	return signalOwn(c.pid, c.owner, sig, func(p process) bool { return p.name == ProcessName })
}

// connectOnce connects, and makes sure that it is the holder who listens: the directory is
// somebody else's, if root asks.
func (c *Client) connectOnce() (int, error) {
	dir, err := openSockets(filepath.Dir(c.path), c.owner)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: procFD(dir) + "/" + filepath.Base(c.path)})
	if err == nil {
		err = c.isPeer(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// isPeer makes sure that the holder listens at the other end of a connection, and did as a
// process of who has mounted: a program that gets rights when it is executed keeps the number.
func (c *Client) isPeer(fd int) error {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	switch {
	case err != nil:
		return err
	case int(cred.Pid) != c.pid:
		return unix.ECONNREFUSED // a holder that has died meanwhile
	case cred.Uid != 0 && int(cred.Uid) != c.owner:
		return unix.EPERM
	}
	return nil
}
