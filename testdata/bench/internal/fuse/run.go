package fuse

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

// command returns a program that has yet to be started, in a process group of
// its own and without the user's settings. When ctx ends, the group does.
func (b *bench) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = b.dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + b.dir, "TMPDIR=" + b.dir, "XDG_RUNTIME_DIR=" + b.dir, "LC_ALL=C",
		// The tree without a mount must stay as it is.
		"PYTHONDONTWRITEBYTECODE=1",
		// A signal that the runtime sends to itself would interrupt reads.
		"GODEBUG=asyncpreemptoff=1",
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// finish runs a program to its end, which must be a good one.
func (b *bench) finish(cmd *exec.Cmd) error {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return errors.Join(b.ctx.Err(), fmt.Errorf("%q: %w\n%s", cmd.Args, err, bytes.TrimSpace(stderr.Bytes())))
	}
	return nil
}

// output runs a program and returns what it printed.
func (b *bench) output(name string, args ...string) (string, error) {
	cmd := b.command(b.ctx, name, args...)
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	err := b.finish(cmd)
	return stdout.String(), err
}

// timed runs a program whose output goes to /dev/null.
func (b *bench) timed(name string, args ...string) (time.Duration, error) {
	begun := time.Now()
	err := b.finish(b.command(b.ctx, name, args...))
	return time.Since(begun), err
}

// A daemon is a process that serves a mount.
type daemon struct {
	pid  int
	done chan struct{}
	err  error        // once done
	out  bytes.Buffer // what it said, once done
}

// serve starts a program that mounts on dir and stays, and returns when
// something is mounted there.
func (b *bench) serve(dir string, environment []string, args ...string) (*daemon, error) {
	cmd := b.command(context.WithoutCancel(b.ctx), args[0], args[1:]...)
	cmd.Env = append(slices.DeleteFunc(cmd.Env, func(v string) bool { return strings.HasPrefix(v, "GODEBUG=") }), environment...)
	d := &daemon{done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &d.out, &d.out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	d.pid = cmd.Process.Pid
	go func() {
		d.err = cmd.Wait()
		close(d.done)
	}()
	b.stops = append(b.stops, d.stop)
	for {
		table, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return nil, err
		}
		if len(mountsBelow(string(table), dir)) > 0 {
			return d, nil
		}
		select {
		case <-d.done:
			// What it said is what matters, and comes first.
			return nil, fmt.Errorf("%s\n%q ended before it mounted anything: %w", bytes.TrimSpace(d.out.Bytes()), args, d.err)
		case <-b.ctx.Done():
			return nil, b.ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// stop waits for the end of a daemon whose mount is gone, and kills it if that
// does not come.
func (d *daemon) stop() error {
	if d.ends(10 * time.Second) {
		return nil
	}
	err := fmt.Errorf("process %d had to be killed", d.pid)
	return errors.Join(err, syscall.Kill(d.pid, syscall.SIGKILL))
}

func (d *daemon) ends(within time.Duration) bool {
	select {
	case <-d.done:
		return true
	case <-time.After(within):
		return false
	}
}

// unmount unmounts what was mounted, and waits for the end of who served it.
func (m *mounted) unmount() error {
	if m.dir == "" {
		return nil
	}
	var err error
	for range 200 { // who has read from it may still be ending
		if err = syscall.Unmount(m.dir, 0); err != syscall.EBUSY {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("unmounting %s: %w", m.dir, err)
	}
	if m.daemon != nil {
		if !m.daemon.ends(10 * time.Second) {
			return fmt.Errorf("process %d still runs after its mount has gone", m.daemon.pid)
		}
		if m.daemon.err != nil {
			return fmt.Errorf("process %d, which served a mount: %w\n%s", m.daemon.pid, m.daemon.err, &m.daemon.out)
		}
	}
	if m.undo != nil {
		if err := m.undo(); err != nil {
			return err
		}
	}
	return os.Remove(m.dir)
}

// mountsBelow returns what a mount table has at and below a directory, the
// newest first. The bench's directories have no name that the table escapes.
func mountsBelow(table, dir string) []string {
	var dirs []string
	for l := range strings.Lines(table) {
		if f := strings.Fields(l); len(f) > 4 && (f[4] == dir || strings.HasPrefix(f[4], dir+"/")) {
			dirs = append(dirs, f[4])
		}
	}
	slices.Reverse(dirs)
	return dirs
}

// cleanUp ends what the bench has left running, and removes its directory.
func (b *bench) cleanUp() error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	for _, dir := range mountsBelow(string(table), b.dir) {
		err = errors.Join(err, syscall.Unmount(dir, syscall.MNT_DETACH))
	}
	for _, stop := range slices.Backward(b.stops) {
		err = errors.Join(err, stop())
	}
	if err != nil {
		return err // what may still be mounted is not removed
	}
	return os.RemoveAll(b.dir)
}

// dropCaches makes the kernel forget all pages and inodes that it can.
func (b *bench) dropCaches() error {
	if b.warm {
		return nil
	}
	syscall.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}
