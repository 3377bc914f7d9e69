//go:build linux

package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A place is a directory, or what else has a path, that is held by a
// descriptor: the descriptor leads to it whatever its path leads to by then.
// Nothing is asked of the file system that it is in.
type place struct {
	fd    int
	path  string // absolute, without symlinks, as it was when it was opened
	mount string // id of the mount that it is in, as the mount table has it
}

// openPlace opens what a path leads to: through symlinks, and onto what is
// mounted there.
func openPlace(ctx context.Context, path string, flags int) (*place, error) {
	return Ask(ctx, func(ctx context.Context) (*place, error) {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC|flags, 0)
		if err != nil {
			return nil, err
		}
		p := &place{fd: fd}
		if p.path, err = p.now(); err == nil {
			p.mount, err = mountOfFD(fd)
		}
		if err == nil {
			err = ctx.Err() // nobody waits for it any more
		}
		if err != nil {
			p.close()
			return nil, err
		}
		return p, nil
	})
}

// openParent opens the directory that holds a path, which has no symlinks in it.
func openParent(ctx context.Context, path string) (*place, error) {
	return openPlace(ctx, filepath.Dir(path), unix.O_DIRECTORY|unix.O_NOFOLLOW)
}

// close gives up the place. Twice does no harm.
func (p *place) close() {
	if p.fd >= 0 {
		unix.Close(p.fd)
		p.fd = -1
	}
}

// link is a path that leads to the place in this process, and in a child of it
// before that executes its program.
func (p *place) link() string { return procFD(p.fd) }

// now returns the path that leads to the place now.
func (p *place) now() (string, error) { return os.Readlink(p.link()) }

func procFD(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// same returns ErrReplaced if the path leads to something else by now, or
// nowhere.
func (p *place) same(ctx context.Context) error {
	again, err := openPlace(ctx, p.path, unix.O_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return ErrReplaced
	case err != nil:
		return err
	}
	defer again.close()
	switch {
	case again.path != p.path: // a symlink on the way to it
		return ErrReplaced
	case again.mount != p.mount:
		return ErrMounted
	}
	return askErr(ctx, func() error {
		var then, now unix.Stat_t
		if err := errors.Join(unix.Fstat(p.fd, &then), unix.Fstat(again.fd, &now)); err != nil {
			return err
		}
		if then.Dev != now.Dev || then.Ino != now.Ino {
			return ErrReplaced
		}
		return nil
	})
}

// lock waits for others who are about to mount on the place, and keeps them off until
// unlock is called. Who may not read it, or has it on a file system without locks, goes
// without.
func (p *place) lock(ctx context.Context) (unlock func(), err error) {
	dir, err := Ask(ctx, func(ctx context.Context) (int, error) {
		fd, err := unix.Open(p.link(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil && ctx.Err() != nil {
			unix.Close(fd)
			err = ctx.Err()
		}
		return fd, err
	})
	switch {
	case errors.Is(err, ErrNoAnswer), ctx.Err() != nil:
		return nil, err
	case err != nil:
		return func() {}, nil
	}
	for end := time.Now().Add(patience); ; time.Sleep(patience / 200) {
		err := unix.Flock(dir, unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || ctx.Err() != nil || time.Now().After(end) {
			return func() { unix.Close(dir) }, nil
		}
	}
}

// mountOfFD returns the id of the mount that an open file is in; see
// proc_pid_fdinfo(5).
func mountOfFD(fd int) (string, error) { return mountIDOf("/proc/self", strconv.Itoa(fd)) }

// mountIDOf is that for another process, by its directory in /proc.
func mountIDOf(proc, fd string) (string, error) {
	text, err := os.ReadFile(filepath.Join(proc, "fdinfo", fd))
	if err != nil {
		return "", err
	}
	for line := range bytes.Lines(text) {
		if id, ok := bytes.CutPrefix(line, []byte("mnt_id:")); ok {
			return string(bytes.TrimSpace(id)), nil
		}
	}
	return "", fmt.Errorf("%s/fdinfo/%s has no mnt_id", proc, fd)
}

// statfs asks the file system of a path how it is. Its server must answer.
func statfs(ctx context.Context, path string) error {
	return askErr(ctx, func() error {
		var st unix.Statfs_t
		return unix.Statfs(path, &st)
	})
}
