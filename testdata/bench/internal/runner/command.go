package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Command returns a program that has yet to be started, in a process group of
// its own and without the user's settings. When the runner's context ends, the
// group does.
func (r *Runner) Command(name string, args ...string) *exec.Cmd { return r.command(r.Ctx, name, args) }

func (r *Runner) command(ctx context.Context, name string, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = r.Dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + r.Dir, "TMPDIR=" + r.Dir, "XDG_RUNTIME_DIR=" + r.Dir, "LC_ALL=C",
		// Python must not change the tree that it is started from.
		"PYTHONDONTWRITEBYTECODE=1",
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// Finish runs a program to its end, which must be a good one.
func (r *Runner) Finish(cmd *exec.Cmd) error {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return errors.Join(r.Ctx.Err(), fmt.Errorf("%q: %w\n%s", cmd.Args, err, bytes.TrimSpace(stderr.Bytes())))
	}
	return nil
}

// Output runs a program and returns what it printed.
func (r *Runner) Output(name string, args ...string) (string, error) {
	cmd := r.Command(name, args...)
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	err := r.Finish(cmd)
	return stdout.String(), err
}

// Timed runs a program whose output goes to /dev/null.
func (r *Runner) Timed(name string, args ...string) (time.Duration, error) {
	begun := time.Now()
	err := r.Finish(r.Command(name, args...))
	return time.Since(begun), err
}

// A Daemon is a process that serves a mount in the foreground.
type Daemon struct {
	PID  int
	done chan struct{}
	err  error        // once done
	out  bytes.Buffer // what it printed, once done
}

// Serve starts a program that mounts on dir and stays, and returns when
// something is mounted there.
func (r *Runner) Serve(dir string, environment []string, args ...string) (*Daemon, error) {
	cmd := r.command(context.WithoutCancel(r.Ctx), args[0], args[1:])
	cmd.Env = append(cmd.Env, environment...)
	d := &Daemon{done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &d.out, &d.out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	d.PID = cmd.Process.Pid
	go func() {
		d.err = cmd.Wait()
		close(d.done)
	}()
	r.AtEnd(d.stop)
	for {
		table, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return nil, err
		}
		if len(MountsBelow(string(table), dir)) > 0 {
			return d, nil
		}
		select {
		case <-d.done:
			// What it printed is what matters, and comes first.
			return nil, fmt.Errorf("%s\n%q ended before it mounted anything: %w", bytes.TrimSpace(d.out.Bytes()), args, d.err)
		case <-r.Ctx.Done():
			return nil, r.Ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// Ended waits for the end of a daemon whose mount is gone. It must be a good
// end.
func (d *Daemon) Ended() error {
	if !d.ends(10 * time.Second) {
		return fmt.Errorf("process %d still runs after its mount has gone", d.PID)
	}
	if d.err != nil {
		return fmt.Errorf("process %d, which served a mount: %w\n%s", d.PID, d.err, &d.out)
	}
	return nil
}

// stop kills a daemon that does not end.
func (d *Daemon) stop() error {
	if d.ends(10 * time.Second) {
		return nil
	}
	err := fmt.Errorf("process %d had to be killed", d.PID)
	return errors.Join(err, syscall.Kill(d.PID, syscall.SIGKILL))
}

func (d *Daemon) ends(within time.Duration) bool {
	select {
	case <-d.done:
		return true
	case <-time.After(within):
		return false
	}
}

// MountsBelow returns what a mount table has at and below a directory, the
// newest first. The bench's directories have no name that the table escapes.
func MountsBelow(table, dir string) []string {
	var dirs []string
	for l := range strings.Lines(table) {
		if f := strings.Fields(l); len(f) > 4 && below(f[4], dir) {
			dirs = append(dirs, f[4])
		}
	}
	slices.Reverse(dirs)
	return dirs
}

func below(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
