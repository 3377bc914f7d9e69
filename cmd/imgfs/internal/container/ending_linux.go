package container

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// An ending is how the first process of a container has ended.
type ending struct {
	code     int  // as shells have it
	signaled bool // by a signal
	executed bool // it has executed its command; else it was the runtime's until the end
}

// waitFor waits for the first process of a container. As process 1 the supervisor is its
// parent when the runtime's own processes, which crun does not wait for, have ended: until
// then it is nobody's to wait for.
func waitFor(pid int) ending {
	for end := time.Now().Add(adoptLimit); ; {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECHILD) && time.Now().Before(end):
			time.Sleep(time.Millisecond)
			continue
		case err != nil:
			return ending{code: ExitFailed, executed: true}
		}
		return collect(pid)
	}
}

// collect returns how a process has ended that waits for being asked.
func collect(pid int) ending {
	e := ending{executed: hasExecuted(pid)}
	var status unix.WaitStatus
	for {
		switch _, err := unix.Wait4(pid, &status, 0, nil); {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			e.code = ExitFailed
		case status.Signaled():
			e.code, e.signaled = 128+int(status.Signal()), true
		default:
			e.code = status.ExitStatus()
		}
		return e
	}
}

const (
	// adoptLimit is how long a runtime's own processes may take to end.
	adoptLimit = 10 * time.Second
	// lookForCommand is how often it is looked whether the command runs.
	lookForCommand = 2 * time.Millisecond
)

// hasExecuted reports whether a process, which may have ended, has executed a program since
// it was forked. Runtimes fork the first process of a container, and tell nobody else
// whether it could execute the command.
func hasExecuted(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	const (
		flags         = 6 // of proc_pid_stat(5), behind the name
		forkedNotExec = 0x40
	)
	_, rest, _ := strings.Cut(string(text[max(0, strings.LastIndexByte(string(text), ')')):]), " ")
	fields := strings.Fields(rest)
	if len(fields) <= flags {
		return false
	}
	set, err := strconv.ParseUint(fields[flags], 10, 32)
	return err == nil && set&forkedNotExec == 0
}
