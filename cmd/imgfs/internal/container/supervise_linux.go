package container

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/fs/fusefs"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// awaitVariable says that the supervisor has no users yet when it starts.
const awaitVariable = "IMGFS_AWAIT_USERS"

// Supervise is the supervisor: process 1 of its namespaces. It returns the exit code of
// the process; what there is to say it says to the command.
func Supervise() int {
	// A signal from within the namespace, such as that of a runtime's terminal, is not
	// to end it, and is not to be ignored by what it starts.
	signal.Notify(make(chan os.Signal, 1))
	l := &line{fd: lineFD}
	if os.Getenv(awaitVariable) != "" && awaitUsers(l) != nil {
		return 1
	}
	unix.CloseOnExec(lineFD)
	unix.CloseOnExec(lockFD)
	unix.CloseOnExec(terminalFD)
	first, _, err := l.receive()
	switch {
	case err != nil:
		return 1 // the command is gone
	case first.Wipe != "":
		if removeAll(first.Wipe) != nil {
			return 1
		}
		return 0
	case first.Setup == nil:
		return 1
	}
	v := &supervisorState{line: l, setup: first.Setup}
	v.saveTerminal()
	v.listen()
	code, err := v.run()
	v.cleanUp()
	var failed *Failure
	switch {
	case err == nil:
		err = l.send(message{Exited: &code}, nil)
	case errors.As(err, &failed):
		err = l.send(message{Failed: failed}, nil)
	default:
		err = l.send(message{Failed: &Failure{Text: err.Error(), Hint: hintOf(err), Code: ExitFailed}}, nil)
	}
	if err != nil { // the command is gone, and its directory is ours to remove
		v.restoreTerminal()
		_ = removeAll(v.setup.Dir) // the next run tries again
	}
	return 0
}

// A supervisorState is what a supervisor knows.
type supervisorState struct {
	line  *line
	setup *setup

	serving chan struct{}       // closed when the tree can be read
	signals chan syscall.Signal // for the container; closed when the command is gone
	pending []syscall.Signal    // came before the runtime had ended
	modes   *term.State         // of the user's terminal
	mounted []string            // what is to be unmounted, in that order
}

// errGone says that the command has ended.
var errGone = errors.New("the command is gone")

// listen begins to take what the command says.
func (v *supervisorState) listen() {
	v.serving, v.signals = make(chan struct{}), make(chan syscall.Signal, 64)
	go func() {
		defer close(v.signals)
		for {
			m, _, err := v.line.receive()
			switch {
			case err != nil:
				return
			case m.Serving:
				close(v.serving)
			case m.Signal != 0:
				select {
				case v.signals <- syscall.Signal(m.Signal):
				default: // there are enough
				}
			}
		}
	}()
}

// run runs the container and returns its exit code.
func (v *supervisorState) run() (int, error) {
	if err := v.prepare(); err != nil {
		return 0, err
	}
	if err := v.mountRoot(); err != nil {
		return 0, err
	}
	c, err := v.begin()
	if err != nil {
		return 0, err
	}
	return v.wait(c)
}

// interrupted is the error of a signal that asked to end before there was a container.
func interrupted(sig syscall.Signal) error {
	return &Failure{Text: "interrupted", Code: 128 + int(sig)}
}

// A process is the first one of a container.
type process struct {
	pid   int
	ended chan ending

	killedBy   syscall.Signal   // the signal that it was killed for, or 0
	kill       <-chan time.Time // when to kill it
	interrupts int              // Ctrl-C, one soon after the other
	last       time.Time        // when Ctrl-C was typed
}

// wait passes signals on to the container until it has ended, and says when it runs: its
// command, and not the runtime any more.
func (v *supervisorState) wait(c *process) (int, error) {
	for _, sig := range v.pending {
		c.signal(sig)
	}
	signals := v.signals
	look := time.NewTicker(lookForCommand)
	defer look.Stop()
	started := false
	for {
		select {
		case end := <-c.ended:
			if end.executed && !started {
				_ = v.line.send(message{Started: true}, nil) // if it is gone, so it is for the code
			}
			switch {
			case c.killedBy != 0:
				return 128 + int(c.killedBy), nil
			case !end.executed && !end.signaled:
				return 0, &Failure{Code: ExitFailed} // the runtime has said why
			}
			return end.code, nil
		case <-look.C:
			if !hasExecuted(c.pid) {
				continue
			}
			started = true
			look.Stop()
			_ = v.line.send(message{Started: true}, nil) // if it is gone, the signals say so
		case <-c.kill:
			_ = unix.Kill(c.pid, unix.SIGKILL)
		case sig, ok := <-signals:
			if !ok { // the command is gone
				signals = nil
				_ = unix.Kill(c.pid, unix.SIGKILL)
				continue
			}
			c.signal(sig)
		}
	}
}

// signal passes a signal on. Process 1 of a namespace has to be killed by one that would
// end others.
func (c *process) signal(sig syscall.Signal) {
	if sig == unix.SIGINT {
		if time.Since(c.last) > soon {
			c.interrupts = 0
		}
		c.last = time.Now()
		c.interrupts++
	}
	if sig == unix.SIGHUP && c.kill == nil {
		c.kill = time.After(stopLimit)
	}
	switch {
	case isEnding(sig) && hasNoHandler(c.pid, sig):
		c.killedBy = sig
		sig = unix.SIGKILL
	case c.interrupts == maxInterrupts:
		sig = unix.SIGKILL
	}
	_ = unix.Kill(c.pid, sig) // else it has just ended
}

const (
	// stopLimit is how long a container may go on whose user's terminal is gone.
	stopLimit = 10 * time.Second
	// maxInterrupts is how many times Ctrl-C is typed, one soon after the other, to end a
	// container that goes on.
	maxInterrupts = 3
	soon          = time.Second
)

// hasNoHandler reports whether a process neither handles nor ignores a signal. The kernel
// does not let such a signal end process 1 of a namespace, as it ends others.
func hasNoHandler(pid int, sig syscall.Signal) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	return !hasSignal(string(text), "SigCgt:", sig) && !hasSignal(string(text), "SigIgn:", sig) && !hasSignal(string(text), "SigBlk:", sig)
}

// hasSignal reports whether a set of signals in a process's status has one.
func hasSignal(status, set string, sig syscall.Signal) bool {
	_, rest, ok := strings.Cut(status, "\n"+set)
	var bits uint64
	if _, err := fmt.Sscanf(rest, "%x", &bits); !ok || err != nil {
		return true // better not to know
	}
	return bits&(1<<(uint(sig)-1)) != 0
}

// saveTerminal notes the modes of the user's terminal, for when the command cannot restore
// them.
func (v *supervisorState) saveTerminal() {
	if v.setup.Terminal {
		v.modes, _ = term.GetState(terminalFD) // nil if the container gets nothing of it
	}
}

func (v *supervisorState) restoreTerminal() {
	if v.modes != nil {
		_ = term.Restore(terminalFD, v.modes) // if it is gone there is nothing to restore
	}
}

// cleanUp unmounts what was mounted, and removes what the container has written: as root
// of the namespace, it may.
func (v *supervisorState) cleanUp() {
	for i := len(v.mounted) - 1; i >= 0; i-- {
		_ = unix.Unmount(v.mounted[i], unix.MNT_DETACH) // else the end of the namespace does it
	}
	_ = removeAll(filepath.Join(v.setup.Dir, writtenPart)) // else the command says so
}

// hintOf returns the hint of an error about mounting, or "".
func hintOf(err error) string {
	var failed *fusefs.Error
	if errors.As(err, &failed) {
		return failed.Hint
	}
	return ""
}

// command returns a program to run, with nothing of the user's environment.
func (v *supervisorState) command(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Dir = v.setup.Dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/", "XDG_RUNTIME_DIR=" + filepath.Join(v.setup.Dir, statePart)}
	return cmd
}
