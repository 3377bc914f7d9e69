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

// Output runs a program and returns its standard output.
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

// MountsBelow returns the mount points of a mount table at and below a directory,
// the newest first. The bench's directories have no name that the table escapes.
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
