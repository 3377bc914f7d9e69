package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/imgfs/imgfs/fs/fusefs"
	"github.com/imgfs/imgfs/remote/printable"
	"golang.org/x/sys/unix"
)

// statsOf asks the mount that a path is in, or is the root of, for its stats.
// ctx ends the wait for a process that does not answer.
func statsOf(ctx context.Context, path string) (mountStats, error) {
	mount, err := mountOf(path)
	if err != nil {
		return mountStats{}, &fusefs.Error{Op: "stats", Dir: path, Err: err, Hint: statsHint(err, path)}
	}
	s, err := askStats(ctx, mount)
	if err != nil {
		return s, &fusefs.Error{Op: "stats", Dir: mount, Err: err, Hint: statsHint(err, mount)}
	}
	return s, nil
}

func statsHint(err error, dir string) string {
	switch {
	case errors.Is(err, fusefs.ErrDead):
		return "imgfs umount " + printable.Word(dir)
	case errors.Is(err, fusefs.ErrNotMounted):
		return "imgfs cache ls shows what is mounted where"
	case errors.Is(err, errStopped):
		return "the process that serves it may be stopped or gone; imgfs umount -l " + printable.Word(dir)
	}
	return ""
}

// mountOf returns the mountpoint of the image that a path is in.
func mountOf(path string) (string, error) {
	mounts, err := fusefs.Mounts()
	if err != nil {
		return "", err
	}
	real, err := realPath(path)
	switch {
	case errors.Is(err, unix.ENOENT):
		return "", fusefs.ErrNoDir
	case errors.Is(err, unix.ENOTCONN), errors.Is(err, unix.ECONNABORTED):
		return "", fusefs.ErrDead
	case err != nil:
		return "", err
	}
	found := ""
	for _, m := range mounts {
		if len(m.Dir) >= len(found) && (real == m.Dir || strings.HasPrefix(real, strings.TrimSuffix(m.Dir, "/")+"/")) {
			found = m.Dir
		}
	}
	if found == "" {
		return "", fusefs.ErrNotMounted
	}
	return found, nil
}

// realPath returns a path without symlinks. Nothing is asked of a file system
// that is mounted on it, which may be dead.
func realPath(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
}

var errStopped = errors.New("it does not answer")

// askStats reads the stats of a mount by its root.
func askStats(ctx context.Context, root string) (mountStats, error) {
	type answer struct {
		stats mountStats
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		s, err := readStats(root) // no signal ends it while nobody answers
		answers <- answer{s, err}
	}()
	select {
	case a := <-answers:
		return a.stats, a.err
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return mountStats{}, errStopped
		}
		return mountStats{}, ctx.Err()
	}
}

func readStats(root string) (mountStats, error) {
	var s mountStats
	text := make([]byte, maxStats)
	n, err := unix.Getxattr(root, statsAttr, text)
	switch {
	case errors.Is(err, unix.ENOTCONN), errors.Is(err, unix.ECONNABORTED):
		return s, fusefs.ErrDead
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.EOPNOTSUPP):
		return s, errors.New("the imgfs that serves it has no stats")
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return s, fmt.Errorf("%w to ask a mount of another user", fusefs.ErrPermission)
	case err != nil:
		return s, err
	}
	if err := unmarshal(text[:n], &s); err != nil {
		return s, fmt.Errorf("its stats are of another version of imgfs: %w", err)
	}
	return s, nil
}

// sameDir tells whether two paths are one directory.
func sameDir(a, b string) bool {
	if filepath.Clean(a) == filepath.Clean(b) {
		return true
	}
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
