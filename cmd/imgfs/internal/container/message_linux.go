package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A message is what the command and the supervisor say to each other: one of its fields
// is set.
type message struct {
	// Of the command.

	Given bool `json:"given,omitempty"` // the user namespace has users

	Setup   *setup `json:"setup,omitempty"`   // the first
	Serving bool   `json:"serving,omitempty"` // the tree can be read
	Signal  int    `json:"signal,omitempty"`  // is for the container
	Wipe    string `json:"wipe,omitempty"`    // the first, in place of Setup: a directory to remove

	// Of the supervisor.

	Proc    bool     `json:"proc,omitempty"`    // comes along, that of the supervisor's PID namespace
	Device  string   `json:"device,omitempty"`  // of the tree's mount, whose FUSE device comes along
	Taken   bool     `json:"taken,omitempty"`   // the mount that was lent is the supervisor's own
	Console bool     `json:"console,omitempty"` // the container's terminal comes along
	Started bool     `json:"started,omitempty"` // the container runs
	Warning string   `json:"warning,omitempty"`
	Failed  *Failure `json:"failed,omitempty"` // nothing runs
	Exited  *int     `json:"exited,omitempty"` // the exit code
}

// A setup is what the supervisor needs to know.
type setup struct {
	Dir      string          `json:"dir"` // the directory of the container
	Name     string          `json:"name"`
	Runtime  Runtime         `json:"runtime"`
	ReadOnly bool            `json:"readOnly"`
	Terminal bool            `json:"terminal"` // the container has one
	Plain    bool            `json:"plain"`    // in a user namespace
	Lent     bool            `json:"lent"`     // the tree is mounted already
	Made     []madeDirectory `json:"made"`     // what the image has no directory for
}

const (
	maxMessage = 64 << 10
	maxFiles   = 4 // that come with a message
)

// A line is one end of the socket between the two. Sending is safe for concurrent use,
// receiving is not.
type line struct {
	fd int
	mu sync.Mutex
}

// newLine returns both ends of a socket. It keeps messages apart, and the end of one
// process ends it for the other.
func newLine() (ours *line, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("a pair of sockets: %w", err)
	}
	return &line{fd: pair[0]}, os.NewFile(uintptr(pair[1]), "socket"), nil
}

// close ends the line. Twice does no harm.
func (l *line) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fd >= 0 {
		unix.Close(l.fd)
		l.fd = -1
	}
}

// send sends a message, and a file with it unless that is nil.
func (l *line) send(m message, file *os.File) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var rights []byte
	if file != nil {
		rights = unix.UnixRights(int(file.Fd()))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if err := unix.Sendmsg(l.fd, text, rights, nil, unix.MSG_NOSIGNAL); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// receive waits for a message, and returns the file that came with it, or nil. io.EOF says
// that the other process is gone.
func (l *line) receive() (m message, file *os.File, err error) {
	text, rights := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*maxFiles))
	for {
		n, r, _, _, err := unix.Recvmsg(l.fd, text, rights, unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECONNRESET), err == nil && n == 0:
			return m, nil, io.EOF
		case err != nil:
			return m, nil, err
		}
		if file, err = sentFile(rights[:r]); err != nil {
			return m, nil, err
		}
		return m, file, json.Unmarshal(text[:n], &m)
	}
}

// sentFile returns the file that came with a message, or nil.
func sentFile(rights []byte) (*os.File, error) {
	all, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	fds, err := unix.ParseUnixRights(&all[0])
	if err != nil || len(fds) == 0 {
		return nil, err
	}
	for _, fd := range fds[1:] {
		unix.Close(fd)
	}
	return os.NewFile(uintptr(fds[0]), "sent"), nil
}

// receiveFile waits for a file that comes with anything.
func (l *line) receiveFile() (*os.File, error) {
	text, rights := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*maxFiles))
	_, r, _, _, err := unix.Recvmsg(l.fd, text, rights, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f, err := sentFile(rights[:r])
	if err == nil && f == nil {
		err = errors.New("no file came")
	}
	return f, err
}
