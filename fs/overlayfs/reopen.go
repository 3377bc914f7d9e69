//go:build linux

package overlayfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/imgfs/imgfs/fs/fusefs"
	"golang.org/x/sys/unix"
)

// A description is what [Mount.Describe] returns.
type description struct {
	Kind   Kind               `json:"kind"`
	Upper  string             `json:"upper"` // Upper.Dir
	At     fusefs.StackedNote `json:"at"`
	Server int                `json:"server,omitempty"` // the process of fuse-overlayfs
	Began  string             `json:"began,omitempty"`  // when it did: see process
}

// Lock returns the open directory: the Upper is locked as long as any process has it open,
// whichever has locked it. It stays the Upper's: the caller does not close it.
func (u *Upper) Lock() *os.File { return u.lock }

// Describe returns what another process needs to go on with the mount when this one has
// ended: with it and with [Upper.Lock] it calls [Reopen]. It is JSON.
func (m *Mount) Describe(u *Upper) ([]byte, error) {
	d := description{Kind: m.kind, Upper: u.dir, At: m.at.Note()}
	if m.server != nil {
		d.Server, d.Began = m.server.pid, m.server.began
	}
	return json.Marshal(d)
}

// Reopen returns an Upper and its mount as the process had them that described them. lock
// is the Upper's from here on. A mount that is gone by now is no error: its Done is closed
// soon. Errors are of type *[fusefs.Error]; lock is closed then.
func Reopen(described []byte, lock *os.File) (*Upper, *Mount, error) {
	var d description
	if err := json.Unmarshal(described, &d); err != nil {
		lock.Close()
		return nil, nil, overlayError("", fmt.Errorf("what is known of it: %w", err))
	}
	u := &Upper{dir: d.Upper, name: d.Upper, lock: lock}
	var err error
	if u.notes, err = readNotes(lock); err != nil {
		lock.Close()
		return nil, nil, overlayError(d.Upper, err)
	}
	m := &Mount{at: fusefs.FindStacked(d.At), kind: d.Kind, done: make(chan struct{}), ended: make(chan struct{})}
	if d.Kind == Fuse {
		m.server, err = findProcess(d.Server, d.Began)
	}
	if err != nil || d.Kind != Fuse {
		close(m.ended) // a fuse-overlayfs that is gone leaves a dead mount
	} else {
		go func() {
			defer close(m.ended)
			m.server.wait()
		}()
	}
	m.watch()
	return u, m, nil
}

// A process is one that may be no child of this one. It is known by its number and the time
// when it began, and held by a descriptor.
type process struct {
	pid   int
	began string // in ticks since the machine was started, as proc_pid_stat(5) has it
	fd    int    // a pidfd, as long as this process lives
}

// errEnded: there is no such process any more.
var errEnded = errors.New("it has ended")

// findProcess returns a process that began at a time; "" is whichever there is, which must
// not have been waited for.
func findProcess(pid int, began string) (*process, error) {
	if pid <= 0 {
		return nil, errEnded
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errEnded, err)
	}
	// The descriptor came first: what is read now is of this process, or of none.
	since, err := beganAt(pid)
	if err != nil || began != "" && since != began {
		unix.Close(fd)
		return nil, errEnded
	}
	return &process{pid, since, fd}, nil
}

// beganAt returns field 22 of /proc/PID/stat.
func beganAt(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The name in parentheses may have any characters in it.
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(f) < 20 {
		return "", fmt.Errorf("/proc/%d/stat is too short", pid)
	}
	return f[19], nil
}

func (p *process) kill() { _ = unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0) }

// wait returns when the process has ended.
func (p *process) wait() {
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, -1)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
