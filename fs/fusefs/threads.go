//go:build linux

package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// threads are those that make requests, as a /proc shows them by the numbers that
// requests have. These are numbers of the PID namespace of whoever mounted, which need
// not be that of the server. The zero value shows none.
type threads struct {
	proc string // the path of that /proc, or ""
	far  bool   // it is another namespace's: kill(2) does not know the numbers
}

// ownThreads returns those of a mount of this process.
func ownThreads() threads {
	if !seesThreads() {
		return threads{}
	}
	return threads{proc: "/proc"}
}

// threadsIn returns those that a /proc shows which is open as long as they are used; nil
// shows none.
func threadsIn(proc *os.File) threads {
	if proc == nil || !seesThreads() { // in /proc is the path to it
		return threads{}
	}
	return threads{proc: fmt.Sprintf("/proc/self/fd/%d", proc.Fd()), far: true}
}

// see reports whether threads are seen, and this one among them may be.
func (t threads) see(thread uint32) bool { return thread != 0 && t.proc != "" }

// file returns the path of a file about a thread.
func (t threads) file(thread int, name string) string {
	return fmt.Sprintf("%s/%d/%s", t.proc, thread, name)
}

// gone reports whether a thread is known to be no more. That its entry in this process's
// own /proc cannot be seen says nothing.
func (t threads) gone(thread int) bool {
	if !t.far {
		return unix.Kill(thread, 0) == unix.ESRCH
	}
	_, err := os.Lstat(t.file(thread, ""))
	return errors.Is(err, os.ErrNotExist)
}

// seesThreads tells whether /proc has the threads by the numbers that requests
// have: that of another PID namespace has not.
var seesThreads = sync.OnceValue(func() bool {
	self, err := os.Readlink("/proc/self")
	return err == nil && self == strconv.Itoa(os.Getpid())
})

// processOf returns the process of a thread, 0 if that is not known. Of a thread
// that is no more it is the thread, which has ended as well: one that is gone as
// soon as this has most likely taken its process along.
func (t threads) processOf(thread uint32) int {
	switch {
	case !t.see(thread):
		return 0
	case t.gone(int(thread)):
		return int(thread)
	}
	return t.statusOf(int(thread)).process
}

// hasEnded reports whether a process is known to be no more, or to be only
// waited for.
func (t threads) hasEnded(process int) bool {
	if process == 0 {
		return false
	}
	if t.gone(process) {
		return true
	}
	st := t.statusOf(process)
	// The first thread of a process may end before others.
	return (st.state == 'Z' || st.state == 'X') && st.threads <= 1
}

// A procStatus is what hasEnded needs of proc_pid_status(5).
type procStatus struct {
	process, threads int
	state            byte
}

func (t threads) statusOf(id int) (st procStatus) {
	text, err := os.ReadFile(t.file(id, "status"))
	if err != nil {
		return st
	}
	for line := range bytes.Lines(text) {
		name, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte(":\t"))
		n, _ := strconv.Atoi(string(value)) // 0 for what is no number
		switch string(name) {
		case "State":
			st.state = append(value, 0)[0]
		case "Tgid":
			st.process = n
		case "Threads":
			st.threads = n
		}
	}
	return st
}

// signalsOf returns the signals of a thread; see proc_pid_status(5).
func (t threads) signalsOf(thread uint32) (s signals) {
	if !t.see(thread) {
		return signals{}
	}
	status, err := os.ReadFile(t.file(int(thread), "status"))
	if err != nil {
		return signals{}
	}
	s.seen = true
	var blocked, ignored uint64
	for line := range bytes.Lines(status) {
		name, value, _ := bytes.Cut(line, []byte(":\t"))
		set, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 16, 64)
		if err != nil {
			continue
		}
		switch string(name) {
		case "SigPnd", "ShdPnd":
			s.pending |= set
		case "SigBlk":
			blocked = set
		case "SigIgn":
			ignored = set
		case "SigCgt":
			s.caught = set
		}
	}
	s.pending &^= blocked | ignored
	return s
}
