package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/imgfs/imgfs/fs/fusefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The descriptors of a supervisor besides the usual ones.
const (
	lineFD     = 3
	lockFD     = 4
	terminalFD = 5 // the user's terminal, if the container has one
)

// Run runs the container and returns its exit code when it has ended and nothing of it is
// left. An error says that imgfs, or the runtime, could not run it; it is a *Failure if
// podman has a code for that. From here on signals are for the container: ctx is
// only looked at before.
func (c *Container) Run(ctx context.Context) (code int, err error) {
	if err := checkSizes(c.Spec.Process); err != nil {
		return 0, err
	}
	// Runtimes bind the root anew, without its flags: crun always, runc where it is
	// read-only. And no cgroup keeps root from the devices of the machine.
	opts := *c.Options
	opts.DeadDevices = true
	c.Options = &opts
	dir, err := newDirectory(c.writeSpec, c.wipe)
	if err != nil {
		return 0, err
	}
	defer func() {
		if failed := dir.remove(c.wipe); failed != nil {
			c.Env.Warnf("what the container wrote is left in %s: %v", dir.path, failed)
		}
	}()
	// Who does not read what the container writes ends the container at most.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	s := &session{c: c}
	defer s.end()
	if c.needsLoan() {
		if err := s.lend(ctx, dir.path); err != nil {
			return 0, err
		}
	}
	if err := s.start(dir); err != nil {
		return 0, err
	}
	return s.run(ctx)
}

// writeSpec writes the bundle's config.json.
func (c *Container) writeSpec(dir string) error {
	spec := *c.Spec
	root := specs.Root{Path: filepath.Join(dir, rootPart)}
	if spec.Root != nil {
		root.Readonly = spec.Root.Readonly
	}
	spec.Root = &root
	text, err := json.Marshal(&spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), text, 0o600)
}

// terminal reports whether the container has a terminal.
func (c *Container) terminal() bool { return c.Spec.Process != nil && c.Spec.Process.Terminal }

// A session is a supervisor, seen from the command.
type session struct {
	c     *Container
	cmd   *exec.Cmd
	line  *line
	stdio *stdio
	srv   *fusefs.Server
	proc  *os.File      // the supervisor's /proc, until the tree is served
	loan  *fusefs.Apart // the tree's mount in this process's namespace, while it is there
	tty   *terminal     // nil until the container has one
}

// start starts the supervisor, and tells it what to do.
func (s *session) start(dir *directory) error {
	c := s.c
	ours, theirs, err := newLine()
	if err != nil {
		return err
	}
	s.line = ours
	files := []*os.File{theirs, dir.lock}
	if c.terminal() && c.Stdin != nil {
		files = append(files, c.Stdin)
	}
	if s.stdio, err = c.newStdio(); err == nil {
		cmd := supervisor(c.Users, files)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = s.stdio.in, s.stdio.out, s.stdio.err
		if err = c.Users.explainStart(cmd.Start()); err == nil {
			s.cmd = cmd
		}
		s.stdio.started()
	}
	theirs.Close() // else its end would not be seen
	if err == nil {
		err = c.Users.give(s.cmd.Process.Pid, ours)
	}
	if err != nil {
		return err
	}
	return ours.send(message{Setup: &setup{Dir: dir.path, Name: c.Options.Name, Runtime: c.Runtime, Terminal: c.terminal(),
		Plain: c.Users != nil, Lent: s.loan != nil, ReadOnly: c.Spec.Root != nil && c.Spec.Root.Readonly, Made: c.made()}}, nil)
}

// supervisor returns the process that runs Supervise, in namespaces of its own.
func supervisor(u *Users, files []*os.File) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", supervisorWord)
	cmd.Args[0], cmd.Dir = "imgfs", "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	if u.hasRanges() {
		cmd.Env = append(cmd.Env, awaitVariable+"=1")
	}
	cmd.ExtraFiles, cmd.SysProcAttr = files, u.procAttr()
	return cmd
}

// end ends the supervisor, if it has not ended, and with it all that it has started.
func (s *session) end() {
	if err := s.settle(); err != nil {
		s.c.Env.Warnf("%v", err)
	}
	if s.line != nil {
		s.line.close()
	}
	if s.cmd != nil {
		s.await()
	}
	if s.stdio != nil {
		s.stdio.giveUp()
		s.stdio.finish()
	}
	if s.tty != nil {
		s.tty.restore()
	}
}

// await waits for the end of the supervisor.
func (s *session) await() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.cmd.Wait() // what it had to say it has said
	}()
	select {
	case <-done:
	case <-time.After(endLimit):
		_ = s.cmd.Process.Kill()
		<-done
	}
}

// endLimit is how long a supervisor may take to end that has nothing to wait for.
const endLimit = 10 * time.Second

// run does what the supervisor says, until the container has ended.
func (s *session) run(ctx context.Context) (int, error) {
	defer s.forwardSignals()()
	if ctx.Err() != nil { // a signal came before that
		return 0, context.Cause(ctx)
	}
	for {
		m, file, err := s.line.receive()
		switch {
		case errors.Is(err, io.EOF):
			return 0, s.died()
		case err != nil:
			return 0, err
		case m.Proc && file != nil:
			s.proc = file
		case m.Device != "" && file != nil:
			err = s.serve(&fusefs.Apart{Device: file, Number: m.Device, Proc: s.proc})
		case m.Taken:
			err = s.settle()
		case m.Console && file != nil:
			err = s.attach(file)
		case m.Warning != "":
			s.c.Env.Warnf("%s", m.Warning)
		case m.Started:
			close(s.stdio.runs)
		case m.Failed != nil:
			return 0, s.explain(m.Failed)
		case m.Exited != nil:
			return *m.Exited, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// explain says why there is no container. Runtimes may have said that only where the
// container would write.
func (s *session) explain(failed *Failure) error {
	if failed.Text != "" {
		return failed
	}
	s.line.close()
	s.await() // whoever can write there
	s.stdio.giveUp()
	if s.tty != nil {
		s.tty.restore()
	}
	return runtimeFailure(s.c.Runtime.Kind, s.stdio.why())
}

// serve serves the tree on what the supervisor has mounted.
func (s *session) serve(apart *fusefs.Apart) (err error) {
	if s.srv, err = fusefs.ServeApart(apart, s.c.Tree, s.c.Options); err != nil {
		return err
	}
	return s.line.send(message{Serving: true}, nil)
}

// attach connects the user's terminal with the container's.
func (s *session) attach(master *os.File) (err error) {
	s.tty, err = newTerminal(s.c.Stdin, s.c.Stdout, master, s.stdio)
	return err
}

// died says how a supervisor ended that has said nothing.
func (s *session) died() error {
	err := s.cmd.Wait()
	var status *exec.ExitError
	if errors.As(err, &status) {
		if how, ok := status.Sys().(syscall.WaitStatus); ok && how.Signaled() {
			return fmt.Errorf("the process that supervises the container was ended by a signal: %v, and the container with it", how.Signal())
		}
	}
	return fmt.Errorf("the process that supervises the container has ended, and the container with it: %v", err)
}

// wipe removes a directory with what a container of this user has written, whoever owns it.
func (c *Container) wipe(path string) error {
	err := removeAll(path)
	if err == nil || c.Users == nil {
		return err
	}
	// Others than this user own it.
	ours, theirs, failed := newLine()
	if failed != nil {
		return err
	}
	defer ours.close()
	cmd := supervisor(c.Users, []*os.File{theirs})
	failed = cmd.Start()
	theirs.Close()
	if failed != nil {
		return err
	}
	if failed = c.Users.give(cmd.Process.Pid, ours); failed == nil {
		failed = ours.send(message{Wipe: path}, nil)
	}
	if failed != nil {
		ours.close()
	}
	if failed = errors.Join(failed, cmd.Wait()); failed != nil {
		return err
	}
	return removeAll(path)
}
