package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// command returns a program that has yet to be started, in a process group of
// its own and without the user's settings. When ctx ends, the group does.
func (b *bench) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = b.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.dir, "TMPDIR=" + b.dir, "XDG_RUNTIME_DIR=" + b.dir, "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// output runs a program to its end, which must be a good one, and returns what
// it printed.
func (b *bench) output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := b.command(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", errors.Join(ctx.Err(), fmt.Errorf("%q: %w\n%s", cmd.Args, err, bytes.TrimSpace(stderr.Bytes())))
	}
	return stdout.String(), nil
}

// discard runs a program and takes only the time. It must not fail.
func (b *bench) discard(ctx context.Context, name string, args ...string) (time.Duration, error) {
	cmd := b.command(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &stderr
	begun := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, errors.Join(ctx.Err(), fmt.Errorf("%q: %w\n%s", cmd.Args, err, bytes.TrimSpace(stderr.Bytes())))
	}
	return time.Since(begun), nil
}

// A mount is an image that imgfs has mounted.
type mount struct {
	b     *bench
	dir   string
	pid   int           // of the process that serves it
	ready time.Duration // until the command to mount it returned
}

// mount mounts an image on a new directory.
func (b *bench) mount(ctx context.Context, cache, image string, flags ...string) (*mount, error) {
	dir, err := os.MkdirTemp(b.dir, "mnt-")
	if err != nil {
		return nil, err
	}
	args := append([]string{"mount", "--quiet", "--cache-dir", cache}, flags...)
	begun := time.Now()
	if _, err := b.output(ctx, b.imgfs, append(args, image, dir)...); err != nil {
		return nil, err
	}
	m := &mount{b: b, dir: dir, ready: time.Since(begun)}
	pids := b.servers(dir)
	if len(pids) != 1 {
		return nil, fmt.Errorf("processes that serve %s: %v, want one", dir, pids)
	}
	m.pid = pids[0]
	return m, nil
}

// unmount unmounts, and waits for the end of the process that serves.
func (m *mount) unmount(ctx context.Context) error {
	if _, err := m.b.output(ctx, m.b.imgfs, "umount", m.dir); err != nil {
		return err
	}
	return m.b.waitGone(ctx, m.dir)
}

// waitGone waits for the end of all processes that serve a directory below
// dir, or dir.
func (b *bench) waitGone(ctx context.Context, dir string) error {
	for len(b.servers(dir)) > 0 {
		if err := sleep(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// with mounts an image, has something done with it, and unmounts it.
func (b *bench) with(ctx context.Context, cache, image string, flags []string, do func(m *mount) error) error {
	m, err := b.mount(ctx, cache, image, flags...)
	if err != nil {
		return err
	}
	if err := do(m); err != nil {
		return err // whatever is mounted is unmounted at the end
	}
	return m.unmount(ctx)
}

// peak returns the most memory that a process has had, in bytes.
func peak(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return parsePeak(string(text))
}

func parsePeak(status string) (int64, error) {
	for l := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(l, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("no VmHWM in the status of a process")
}

// servers returns the processes of imgfs that have a path at or below dir
// among their arguments. The bench's directories are its own, and so are they.
func (b *bench) servers(dir string) []int {
	names, _ := filepath.Glob("/proc/[0-9]*") // the pattern is a good one
	var pids []int
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(name, "cmdline"))
		if err != nil || len(text) == 0 {
			continue
		}
		args := strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
		if args[0] == b.imgfs && slices.ContainsFunc(args[1:], func(a string) bool { return below(a, dir) }) {
			if pid, err := strconv.Atoi(filepath.Base(name)); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func below(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// mountsBelow returns what a mount table has at and below a directory, the
// newest first. The bench's directories have no name that the table escapes.
func mountsBelow(table, dir string) []string {
	var dirs []string
	for l := range strings.Lines(table) {
		if f := strings.Fields(l); len(f) > 4 && below(f[4], dir) {
			dirs = append(dirs, f[4])
		}
	}
	slices.Reverse(dirs)
	return dirs
}

// cleanUp ends what the bench has left running, and removes its directory.
func (b *bench) cleanUp(ctx context.Context) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	for _, dir := range mountsBelow(string(table), b.dir) {
		if _, e := b.output(ctx, b.imgfs, "umount", "--lazy", dir); e != nil {
			err = errors.Join(err, e)
		}
	}
	patience, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if b.waitGone(patience, b.dir) != nil {
		for _, pid := range b.servers(b.dir) {
			err = errors.Join(err, fmt.Errorf("process %d had to be killed", pid), syscall.Kill(pid, syscall.SIGKILL))
		}
	}
	for _, stop := range slices.Backward(b.stops) {
		err = errors.Join(err, stop())
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}
