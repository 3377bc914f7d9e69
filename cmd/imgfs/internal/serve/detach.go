package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/config"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
)

// imgfs mount starts itself again for the process that stays. That child does all
// the work, in a session of its own, with two pipes to the process that the shell
// waits for: on one the child says how far it is and that the tree is ready, and the
// end of the other tells it that its parent is gone. A socket could be both, but with
// --offline imgfs opens none.
//
// What the child says are words, each an object of JSON in a line: no text that is in
// one can look like the next. Only the parent draws on the terminal and prints
// messages there, as only it is in the terminal's session, and is stopped by Ctrl-Z.
const (
	toParentFD   = 3
	fromParentFD = 4
)

// A word is what a child says to its parent: the one field that is set.
type word struct {
	Message  *string        `json:"message,omitempty"`
	Progress *show.Progress `json:"progress,omitempty"`
	Finished bool           `json:"finished,omitempty"` // there is no more progress
	Mounted  []byte         `json:"mounted,omitempty"`  // the report of the mount, which is ready
}

// A Child is the process in the background that is to serve a mount.
type Child struct {
	Args []string // its command line, without the program; paths are absolute
	// Stdin is where the image comes from, if it does so; nil is nothing. It is the
	// child's until the mount is ready.
	Stdin *os.File
	// Stdout and Stderr are its own until the mount is ready.
	Stdout, Stderr io.Writer
	// Message is called with each message of the child, which is one line.
	Message func(line string)
	// SameGroup leaves the child in the process group of this process, until it has
	// mounted (Mount.NewSession): systemd lets those of its own group alone past a
	// directory that it mounts on when somebody looks there.
	SameGroup bool
	// Failed is called when the child has ended before its mount was ready, which it may
	// have left behind.
	Failed func()
	// Display begins to show progress; see show.Console.
	Display func() show.Display
}

// Detach starts a child and returns when its mount is ready or has failed. line is
// the child's report of the mount. If the child has printed an error and ended,
// Detach returns a *cli.ExitError with its exit code. The end of ctx ends the
// child.
func Detach(ctx context.Context, c Child) (line string, err error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	word, theirWord, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer word.Close()
	defer theirWord.Close()
	theirLife, life, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer theirLife.Close()
	defer life.Close() // nothing is ever written to it
	child := exec.Command(exe, c.Args...)
	child.Dir = "/" // not to keep busy where the user happens to be
	child.Env = childEnv()
	child.Stdout, child.Stderr = c.Stdout, c.Stderr
	if c.Stdin != nil {
		child.Stdin = c.Stdin
	}
	child.ExtraFiles = extraFiles(theirWord, theirLife, child.Args)
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: !c.SameGroup}
	if err := child.Start(); err != nil {
		return "", err
	}
	theirWord.Close() // else its end would not be seen
	return c.awaitReady(ctx, child, word)
}

// extraFiles returns what the child inherits: its two pipes, and the descriptors of
// ours that an argument names, or a variable that it reads. A shell makes such names
// from --authfile <(command).
func extraFiles(word, life *os.File, args []string) []*os.File {
	names := slices.Clone(args)
	for _, name := range pathVars {
		names = append(names, os.Getenv(name))
	}
	files := []*os.File{toParentFD - 3: word, fromParentFD - 3: life}
	for _, name := range names {
		m := descriptorName.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		fd, err := strconv.Atoi(m[1])
		var st unix.Stat_t
		if err != nil || fd <= fromParentFD || fd > maxNamedFD || unix.Fstat(fd, &st) != nil {
			continue
		}
		files = append(files, make([]*os.File, max(0, fd-3+1-len(files)))...)
		files[fd-3] = os.NewFile(uintptr(fd), name)
	}
	return files
}

// maxNamedFD is the largest descriptor that an argument may name.
const maxNamedFD = 1 << 16

var descriptorName = regexp.MustCompile(`[:=]?/(?:dev|proc/self)/fd/([0-9]+)$`)

// awaitReady waits until the child says that the mount is ready, and returns its
// report. A signal goes on to the child, which cleans up and ends.
func (c *Child) awaitReady(ctx context.Context, child *exec.Cmd, from io.Reader) (string, error) {
	stop := context.AfterFunc(ctx, func() { child.Process.Signal(syscall.SIGTERM) })
	defer stop()
	line, err := c.listen(from)
	if err == nil && ctx.Err() != nil {
		_ = child.Wait() // it unmounts
		return "", ctx.Err()
	}
	if err == nil {
		return line, child.Process.Release()
	}
	err = child.Wait()
	c.Failed()
	var status *exec.ExitError
	if errors.As(err, &status) && status.ExitCode() > 0 {
		return "", &cli.ExitError{Code: status.ExitCode()} // it has printed why
	}
	err = fmt.Errorf("the process in the background ended before the mount was ready: %w", err)
	if status != nil {
		if how, ok := status.Sys().(syscall.WaitStatus); ok && how.Signal() == syscall.SIGSYS {
			return "", cli.WithHint(err, "a seccomp filter kills what mounts: a unit needs SystemCallFilter=@mount, a container --cap-add SYS_ADMIN")
		}
	}
	return "", err
}

// listen takes the words of a child until one says that the mount is ready, and
// returns the report in it. The error says that there is none.
func (c *Child) listen(from io.Reader) (line string, err error) {
	var display show.Display // nil: nothing is shown
	finished := func() {
		if display != nil {
			display.Close()
			display = nil
		}
	}
	defer finished()
	for words := json.NewDecoder(from); ; {
		var w word
		if err := words.Decode(&w); err != nil {
			return "", err
		}
		switch {
		case w.Message != nil:
			c.Message(*w.Message)
		case w.Progress != nil:
			if display == nil {
				display = c.Display()
			}
			if display != nil {
				display.Show(*w.Progress)
			}
		case w.Finished:
			finished()
		case w.Mounted != nil:
			return string(w.Mounted), nil
		}
	}
}

// pathVars are the variables with a path that imgfs, or Go for it, reads.
var pathVars = []string{"IMGFS_CACHE_DIR", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "CONTAINERS_REGISTRIES_CONF", "CONTAINERS_REGISTRIES_CONF_OVERRIDE",
	"SSL_CERT_FILE", "TMPDIR"}

// childEnv gives the child this process's environment, with the paths that
// imgfs reads in it made absolute. The configuration file is not read again: what it says
// is in the arguments, and it may have changed.
func childEnv() []string {
	vars := append(os.Environ(), config.Variable+"=")
	for _, name := range pathVars {
		value := os.Getenv(name)
		if abs, err := filepath.Abs(value); err == nil && value != "" {
			vars = append(vars, name+"="+abs)
		}
	}
	return vars
}

// A Parent is the process that the shell waits for, seen from its child. It is safe
// for concurrent use.
type Parent struct {
	from  *os.File
	ready atomic.Bool

	mu sync.Mutex
	to *os.File
}

var _ show.Display = (*Parent)(nil)

// NewParent returns the parent of a child that Detach started, and a context that
// ends when the parent is gone before the mount is ready: nobody wants it then. The
// messages of e go to the parent.
func NewParent(ctx context.Context, e *cli.Env) (*Parent, context.Context) {
	syscall.CloseOnExec(toParentFD)
	syscall.CloseOnExec(fromParentFD)
	// Progress is not to wait for a parent that is stopped. If this fails it does.
	_ = syscall.SetNonblock(toParentFD, true)
	p := &Parent{to: os.NewFile(toParentFD, "parent"), from: os.NewFile(fromParentFD, "parent")}
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		p.from.Read(make([]byte, 1)) // ends when the parent does: it says nothing
		p.from.Close()
		if !p.ready.Load() {
			cancel(errors.New("the command that began the mount is gone"))
		}
	}()
	e.SetOutput(func(line string) {
		if p.say(word{Message: &line}) != nil {
			fmt.Fprintf(e.Stderr, "imgfs: %s\n", line)
		}
	})
	return p, ctx
}

// say says a word.
func (p *Parent) say(w word) error {
	text, err := json.Marshal(w)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err = p.to.Write(append(text, '\n'))
	return err
}

// maxProgress is how long a word about progress may be: a pipe takes as much as a
// whole or not at all.
const maxProgress = 4096

// Show implements show.Display. Progress that the parent does not take at once is left
// out.
func (p *Parent) Show(s show.Progress) {
	text, err := json.Marshal(word{Progress: &s})
	if err != nil || len(text) >= maxProgress || !p.mu.TryLock() {
		return
	}
	defer p.mu.Unlock()
	if p.to.SetWriteDeadline(time.Now().Add(10*time.Millisecond)) != nil {
		return
	}
	_, _ = p.to.Write(append(text, '\n')) // there is more to come
	_ = p.to.SetWriteDeadline(time.Time{})
}

// Close implements show.Display.
func (p *Parent) Close() { _ = p.say(word{Finished: true}) } // if it is gone it shows nothing

// release tells the parent that the tree is ready, and lets go of the terminal that
// came from it, or of the pipe that somebody reads to its end.
func (p *Parent) release(line string) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	p.ready.Store(true)
	if err := p.say(word{Mounted: []byte(line)}); err != nil {
		return fmt.Errorf("the command that began the mount is gone: %w", err)
	}
	for fd := range 3 {
		if err := redirect(fd, null); err != nil {
			return err
		}
	}
	return p.to.Close()
}
