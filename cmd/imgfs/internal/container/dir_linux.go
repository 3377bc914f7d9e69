package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs/fusefs"
	"golang.org/x/sys/unix"
)

// A directory is where a container is while it lives: what it writes, and where the
// supervisor mounts the rest. It is locked as long as a process holds its lock.
type directory struct {
	path string
	lock *os.File // the directory itself
}

// dirPrefix is how the names of such directories begin; behind it is the user.
const dirPrefix = "imgfs-run-"

// The parts of the directory. The bundle is the directory itself.
const (
	rootPart    = "rootfs"  // the container's root is mounted there
	lowerPart   = "image"   // the tree, below an overlay
	writtenPart = "written" // the overlay's own directories
	statePart   = "state"   // a tmpfs: the runtime's files
	memoryPart  = "memory"  // a tmpfs, if the overlay's directories must be there
)

// newDirectory makes a directory, where files may be large and have extended attributes:
// in TMPDIR if that is set, else in /var/tmp, else in /tmp. What runs that were killed
// have left there is removed before, if wipe can. fill writes more into the directory.
func newDirectory(fill, wipe func(path string) error) (*directory, error) {
	places := []string{"/var/tmp", "/tmp"}
	if set := os.Getenv("TMPDIR"); filepath.IsAbs(set) {
		places = append([]string{set}, places...)
	}
	var why []string
	for _, place := range places {
		place, err := filepath.EvalSymlinks(place)
		if err == nil {
			sweep(place, wipe)
			var d *directory
			if d, err = makeDirectory(place, fill); err == nil {
				return d, nil
			}
		}
		why = append(why, err.Error())
	}
	return nil, cli.WithHint(fmt.Errorf("no place for what the container writes: %s", strings.Join(why, "; ")), "TMPDIR=DIR imgfs run ..., a directory of yours")
}

// namesOf is how the names of this user's directories begin.
func namesOf() string { return dirPrefix + strconv.Itoa(os.Geteuid()) + "-" }

// makeDirectory makes a directory and locks it. Another run may take it for one that was
// left and remove it before it is locked: then there is another one.
func makeDirectory(place string, fill func(path string) error) (*directory, error) {
	for range maxTries {
		path, err := os.MkdirTemp(place, namesOf()) // mode 0700
		if err != nil {
			return nil, err
		}
		lock, err := os.Open(path)
		if err != nil {
			continue
		}
		if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil || !isAt(lock, path) {
			lock.Close()
			continue
		}
		d := &directory{path, lock}
		for _, part := range []string{rootPart, lowerPart, writtenPart, statePart, memoryPart} {
			if err := os.Mkdir(filepath.Join(path, part), 0o700); err != nil {
				return nil, errors.Join(err, d.remove(os.RemoveAll))
			}
		}
		if err := fill(path); err != nil {
			return nil, errors.Join(err, d.remove(os.RemoveAll))
		}
		return d, nil
	}
	return nil, fmt.Errorf("%s: directories are removed there as soon as they are made", place)
}

// maxTries is how many directories are made for one that stays.
const maxTries = 10

// isAt reports whether an open directory has a path.
func isAt(dir *os.File, path string) bool {
	var open, there unix.Stat_t
	return unix.Fstat(int(dir.Fd()), &open) == nil && unix.Lstat(path, &there) == nil && open.Dev == there.Dev && open.Ino == there.Ino
}

// remove removes the directory with wipe, and unlocks it.
func (d *directory) remove(wipe func(path string) error) error {
	err := wipe(d.path)
	d.lock.Close()
	return err
}

// sweep removes the directories of this user whose processes are gone. What it cannot
// remove, or what others use, stays.
func sweep(place string, wipe func(path string) error) {
	dir, err := os.Open(place)
	if err != nil {
		return
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(maxSwept)
	for _, name := range names {
		if !strings.HasPrefix(name, namesOf()) {
			continue
		}
		path := filepath.Join(place, name)
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && int(st.Uid) == os.Geteuid() && unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			if os.Geteuid() != 0 { // else it is in no mount namespace but that of the supervisor
				_ = fusefs.UnmountLazy(context.Background(), filepath.Join(path, lowerPart)) // it hardly ever is mounted
			}
			_ = wipe(path) // the next run tries again
		}
		unix.Close(fd)
	}
}

// maxSwept is how many names are looked at in a directory for temporary files.
const maxSwept = 100_000
