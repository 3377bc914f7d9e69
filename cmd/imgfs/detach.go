package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
)

// imgfs mount starts itself again for the process that stays. That one does
// all the work, in a session of its own, with two pipes to the one that the
// shell waits for: on one the child says that the tree is ready, and of the
// other it sees the end when its parent is gone. A socket could be both, but
// with --offline there is none.
const (
	detachedFlag = "detached"
	toParentFD   = 3
	fromParentFD = 4
)

// detach runs the mount in a child and returns when it is ready, or failed.
func (m *mounter) detach(ctx context.Context, e *env, name, dir string, flags *pflag.FlagSet) error {
	name, err := absLocation(name)
	if err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	word, theirWord, err := os.Pipe()
	if err != nil {
		return err
	}
	defer word.Close()
	defer theirWord.Close()
	theirLife, life, err := os.Pipe()
	if err != nil {
		return err
	}
	defer theirLife.Close()
	defer life.Close() // nothing is ever written to it
	child := exec.Command(exe, append(childArgs(flags), "--", name, dir)...)
	child.Dir = "/" // not to keep busy where the user happens to be
	child.Env = childEnv()
	child.Stdout, child.Stderr = e.Raw, e.Stderr
	child.ExtraFiles = extraFiles(theirWord, theirLife, child.Args)
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		return err
	}
	theirWord.Close() // else its end would not be seen
	return awaitReady(ctx, e, child, word)
}

// extraFiles are what the child inherits: its two pipes, and such descriptors of
// ours as an argument names, or a variable that it reads. A shell makes names of
// that kind from --authfile <(command).
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

// awaitReady waits for the child's word. A signal goes on to the child, which
// cleans up and ends.
func awaitReady(ctx context.Context, e *env, child *exec.Cmd, from io.Reader) error {
	stop := context.AfterFunc(ctx, func() { child.Process.Signal(syscall.SIGTERM) })
	defer stop()
	line, err := bufio.NewReader(from).ReadString('\n')
	if err == nil && ctx.Err() != nil {
		_ = child.Wait() // it unmounts
		return ctx.Err()
	}
	if err == nil {
		if !e.Quiet {
			fmt.Fprint(e.Stdout, line)
		}
		return child.Process.Release()
	}
	err = child.Wait()
	var status *exec.ExitError
	if errors.As(err, &status) && status.ExitCode() > 0 {
		return &cli.ExitError{Code: status.ExitCode()} // it has said why
	}
	return fmt.Errorf("the process in the background ended before the mount was ready: %w", err)
}

// childArgs gives the child the flags that were given. Paths in them become
// absolute.
func childArgs(flags *pflag.FlagSet) []string {
	args := []string{"mount", "--" + detachedFlag}
	flags.VisitAll(func(f *pflag.Flag) { // Visit misses those before the command
		if !f.Changed {
			return
		}
		value := f.Value.String()
		if f.Name == "cache-dir" || f.Name == "authfile" {
			if abs, err := filepath.Abs(value); err == nil {
				value = abs
			}
		}
		args = append(args, "--"+f.Name+"="+value)
	})
	return args
}

// pathVars are the variables with a path that imgfs, or Go for it, reads.
var pathVars = []string{"IMGFS_CACHE_DIR", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "CONTAINERS_REGISTRIES_CONF", "CONTAINERS_REGISTRIES_CONF_OVERRIDE",
	"SSL_CERT_FILE", "TMPDIR"}

// childEnv gives the child this process's environment, with the paths that
// imgfs reads in it made absolute.
func childEnv() []string {
	vars := os.Environ()
	for _, name := range pathVars {
		value := os.Getenv(name)
		if abs, err := filepath.Abs(value); err == nil && value != "" {
			vars = append(vars, name+"="+abs)
		}
	}
	return vars
}

// A parent is the process that the shell waits for, seen from its child.
type parent struct {
	to, from *os.File
	ready    atomic.Bool
}

// newParent returns the parent, and ctx until the parent is gone: a mount
// that was not ready by then nobody wants.
func newParent(ctx context.Context) (*parent, context.Context) {
	p := &parent{to: os.NewFile(toParentFD, "parent"), from: os.NewFile(fromParentFD, "parent")}
	syscall.CloseOnExec(toParentFD)
	syscall.CloseOnExec(fromParentFD)
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		p.from.Read(make([]byte, 1)) // ends when the parent does: it says nothing
		p.from.Close()
		if !p.ready.Load() {
			cancel(errors.New("the command that began the mount is gone"))
		}
	}()
	return p, ctx
}

// release tells the parent that the tree is ready and lets go of what came
// from it: the terminal, or the pipe that somebody reads to its end.
func (p *parent) release(line string) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	p.ready.Store(true)
	if _, err := io.WriteString(p.to, line+"\n"); err != nil {
		return fmt.Errorf("the command that began the mount is gone: %w", err)
	}
	for fd := range 3 {
		if err := redirect(fd, null); err != nil {
			return err
		}
	}
	return p.to.Close()
}

// keepToOurselves sees to it that what this process was started with goes to
// none that it starts: descriptors of locks, pipes and secrets, and a mask that
// would give files more rights than they are to have, or none.
func keepToOurselves() {
	unix.Umask(0o077)
	if closeOnExecFrom(3) == nil {
		return
	}
	open, err := os.ReadDir(ownDescriptors)
	if err != nil {
		return
	}
	for _, entry := range open {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}
