package container

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// containerID is the name of the container to its runtime, which knows no other.
const containerID = "imgfs"

// begin has the runtime start the container.
func (v *supervisorState) begin() (*process, error) {
	if v.setup.Runtime.Kind == Bwrap {
		return v.beginBwrap()
	}
	state := filepath.Join(v.setup.Dir, statePart)
	log, pidFile := filepath.Join(state, "log"), filepath.Join(state, "pid")
	var args []string
	if v.setup.Runtime.Kind == Crun {
		args = []string{"--cgroup-manager=disabled", "--log=file:" + log}
	} else { // rootless is about cgroups here: it does without
		args = []string{"--rootless=true", "--log=" + log}
	}
	args = append(args, "--log-format=json", "--root="+filepath.Join(state, "containers"), "run", "--detach", "--bundle="+v.setup.Dir, "--pid-file="+pidFile)
	var console *console
	if v.setup.Terminal {
		var err error
		if console, err = newConsole(filepath.Join(state, "console")); err != nil {
			return nil, err
		}
		defer console.close()
		args = append(args, "--console-socket="+console.path)
	}
	cmd := v.command(v.setup.Runtime.Path, append(args, containerID)...)
	var said firstText
	if v.setup.Terminal {
		cmd.Stderr = &said
	} else {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	}
	if err := v.runRuntime(cmd); err != nil {
		return nil, v.explainRuntime(err, log, string(said.text))
	}
	if console != nil {
		if err := console.pass(v.line); err != nil {
			return nil, err
		}
	}
	return v.child(pidFile)
}

// runRuntime runs a runtime to its end, unless watch ends it.
func (v *supervisorState) runRuntime(cmd *exec.Cmd) error {
	cmd.WaitDelay = leftLimit
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", v.setup.Runtime.Path, err)
	}
	err := v.awaitEnd(cmd)
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil // it ended well; the container is another process
	}
	return err
}

// awaitEnd waits for the end of a runtime, unless watch ends it.
func (v *supervisorState) awaitEnd(cmd *exec.Cmd) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = cmd.Wait()
	}()
	if failed := v.watch(cmd.Process, done); failed != nil {
		<-done
		return failed
	}
	return err
}

// watch waits until a runtime is done, and kills it if the command is gone. A signal that
// comes meanwhile is the container's, which may run already; if it is one that asks to end,
// the runtime is killed soon, such as when it waits for a server.
func (v *supervisorState) watch(runtime *os.Process, done <-chan struct{}) error {
	var limit <-chan time.Time
	for {
		select {
		case <-done:
			return nil
		case sig, ok := <-v.signals:
			if !ok {
				_ = runtime.Kill() // else it has just ended
				return errGone
			}
			v.pending = append(v.pending, sig)
			if limit == nil && isEnding(sig) {
				limit = time.After(startLimit)
			}
		case <-limit:
			_ = runtime.Kill() // else it has just ended
			return interrupted(v.pending[slices.IndexFunc(v.pending, isEnding)])
		}
	}
}

const (
	// startLimit is how long a runtime may go on starting a container that is to end.
	startLimit = time.Second
	// leftLimit is how long what a runtime says is read after its end, which processes
	// that it has left hold open.
	leftLimit = 500 * time.Millisecond
)

// A firstText is the beginning of what is written to it.
type firstText struct{ text []byte }

func (f *firstText) Write(p []byte) (int, error) {
	f.text = append(f.text, p[:min(len(p), maxSaid-len(f.text))]...)
	return len(p), nil
}

// child returns the first process of the container.
func (v *supervisorState) child(pidFile string) (*process, error) {
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return nil, fmt.Errorf("%s says no process: %w", v.setup.Runtime.Kind, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid < 2 {
		return nil, fmt.Errorf("%s says the process is %.20q", v.setup.Runtime.Kind, text)
	}
	p := &process{pid: pid, ended: make(chan ending, 1)}
	go func() { p.ended <- waitFor(pid) }()
	return p, nil
}

// explainRuntime makes a Failure of how a runtime failed: what it says is in its log.
func (v *supervisorState) explainRuntime(err error, log, said string) error {
	var status *exec.ExitError
	if !errors.As(err, &status) {
		return err
	}
	if last := lastMessage(log); last != "" {
		said = last
	}
	if said == "" {
		said = err.Error()
	}
	return runtimeFailure(v.setup.Runtime.Kind, said)
}

// lastMessage returns the last message of a runtime's log, or "".
func lastMessage(log string) string {
	text, err := os.ReadFile(log)
	if err != nil {
		return ""
	}
	var last string
	for l := range bytes.Lines(text) {
		var entry struct{ Msg string }
		if json.Unmarshal(l, &entry) == nil && entry.Msg != "" {
			last = entry.Msg
		}
	}
	return last
}

// A console is the socket on which a runtime sends a container's terminal.
type console struct {
	path string
	fd   int
}

func newConsole(path string) (*console, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	c := &console{path, fd}
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		c.close()
		return nil, fmt.Errorf("a socket for the terminal: %w", err)
	}
	return c, nil
}

func (c *console) close() { unix.Close(c.fd) }

// pass passes the terminal, which the runtime has sent by now, on to the command.
func (c *console) pass(to *line) error {
	fd, _, err := unix.Accept4(c.fd, unix.SOCK_CLOEXEC)
	if errors.Is(err, unix.EAGAIN) {
		return errors.New("the runtime has ended without a word of the container's terminal")
	}
	if err != nil {
		return err
	}
	from := &line{fd: fd}
	defer from.close()
	// It is there, or never comes.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return err
	}
	master, err := from.receiveFile()
	if err != nil {
		return fmt.Errorf("the container's terminal: %w", err)
	}
	defer master.Close()
	if to.send(message{Console: true}, master) != nil {
		return errGone
	}
	return nil
}
