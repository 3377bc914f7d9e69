package serve

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs/fusefs"
	"golang.org/x/sys/unix"
)

// A Mountpoint is a directory that was made to be mounted on. It is below a directory
// of this user's alone (see places), is locked as long as the process lives that made
// it, and has the sticky bit, which means nothing in a directory that nobody else can
// write: so it can be told from those that the user has made there.
type Mountpoint struct {
	// Dir is its path, without symlinks and newlines.
	Dir string

	lock *os.File // the directory itself
}

// madeMode is the mode of the directories.
const madeMode = unix.S_ISVTX | 0o700

// MakeMountpoint makes a directory with a name, or the name and a number if it is
// taken. With others it is where other users can get, if this user has such a place.
// What processes that were killed have left there is removed before.
func MakeMountpoint(ctx context.Context, name string, others bool) (*Mountpoint, error) {
	base, err := openBase(others)
	if err != nil {
		return nil, cli.WithHint(fmt.Errorf("no place for a directory to mount on: %w", err), "name a directory of your own: imgfs mount IMAGE DIR")
	}
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		sweep(ctx, base)
	}()
	select {
	case <-swept:
	case <-time.After(sweepLimit): // something there hangs
	}
	for n := 1; n <= maxMade; n++ {
		path := filepath.Join(base, name)
		if n > 1 {
			path += "-" + strconv.Itoa(n)
		}
		m, err := makeLocked(path)
		if err == nil {
			return m, nil
		}
		if !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOENT) {
			return nil, fmt.Errorf("making the directory %s: %w", path, err)
		}
	}
	return nil, fmt.Errorf("%s has more than %d directories for %s", base, maxMade, name)
}

// maxMade is how many directories there may be of one name.
const maxMade = 1000

// makeLocked makes a directory and locks it. The error is EEXIST if there is one, and
// ENOENT if it was swept away before it was locked.
func makeLocked(path string) (*Mountpoint, error) {
	defer lockBase(filepath.Dir(path))()
	if err := unix.Mkdir(path, madeMode); err != nil {
		return nil, err
	}
	return lockMade(path)
}

// lockMade locks a directory that was just made. The error is ENOENT if another process
// has swept it away since; in its place may be that of a third one, and a mount on it.
func lockMade(path string) (*Mountpoint, error) {
	dir, err := openMade(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil || !isAt(dir, path) || !isBeside(dir, filepath.Dir(path)) {
		dir.Close()
		return nil, unix.ENOENT
	}
	return &Mountpoint{Dir: path, lock: dir}, nil
}

// isBeside reports whether an open directory is in the same file system as another one:
// what is mounted on it is not.
func isBeside(dir *os.File, base string) bool {
	var open, there unix.Stat_t
	return unix.Fstat(int(dir.Fd()), &open) == nil && unix.Stat(base, &there) == nil && open.Dev == there.Dev
}

// lockBase locks the place of such directories: none is made or removed there until the
// function that it returns is called, so that a path means the same directory until then.
// It waits no longer than lockLimit for a process that hangs.
func lockBase(base string) (unlock func()) {
	dir, err := openMade(base)
	if err != nil {
		return func() {}
	}
	for end := time.Now().Add(lockLimit); time.Now().Before(end); time.Sleep(lockPause) {
		if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return func() { dir.Close() }
}

const lockLimit, lockPause = time.Second, 2 * time.Millisecond

// openMade opens a directory that was made.
func openMade(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// isAt reports whether an open directory has a path.
func isAt(dir *os.File, path string) bool {
	var open, there unix.Stat_t
	return unix.Fstat(int(dir.Fd()), &open) == nil && unix.Lstat(path, &there) == nil && open.Dev == there.Dev && open.Ino == there.Ino
}

// Remove removes the directory, unless something is mounted on it or it has become
// another one. Twice does no harm.
func (m *Mountpoint) Remove() {
	if m == nil || m.lock == nil {
		return
	}
	unlock := lockBase(filepath.Dir(m.Dir))
	if isAt(m.lock, m.Dir) {
		_ = unix.Rmdir(m.Dir) // what is not empty stays
	}
	unlock()
	m.lock.Close()
	m.lock = nil
}

// RemoveMade removes a directory that nothing is mounted on any more, if
// MakeMountpoint has made it. While the process that made it lives, that removes it:
// RemoveMade waits for a moment then, and leaves it to that process.
func RemoveMade(dir string) {
	path, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return
	}
	if path, err = filepath.Abs(path); err != nil {
		return
	}
	for _, p := range places(false) {
		if base, err := filepath.EvalSymlinks(p.dir); err == nil && base == filepath.Dir(path) && isMade(path) {
			awaitRemoved(path)
			return
		}
	}
}

// awaitRemoved removes a directory when it is not locked, or waits until another process
// has removed it, for as long as that takes when nobody uses its mount any more.
func awaitRemoved(path string) {
	dir, err := openMade(path)
	if err != nil {
		return
	}
	defer dir.Close()
	for end := time.Now().Add(endLimit / 2); isAt(dir, path) && time.Now().Before(end); time.Sleep(endLimit / 100) {
		sweepOne(path)
	}
}

// isMade reports whether a directory is one that MakeMountpoint makes.
func isMade(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && st.Mode&^0o777 == unix.S_IFDIR|unix.S_ISVTX && int(st.Uid) == os.Geteuid()
}

// sweep removes the directories, and the dead mounts on them, of processes that were
// killed.
func sweep(ctx context.Context, base string) {
	ctx, cancel := context.WithTimeout(ctx, sweepLimit)
	defer cancel()
	dir, err := os.Open(base)
	if err != nil {
		return
	}
	names, _ := dir.Readdirnames(maxMade) // what cannot be read is left
	dir.Close()
	mounts, err := fusefs.Mounts()
	if err != nil {
		return
	}
	for _, name := range names {
		path := filepath.Join(base, name)
		on := func(m fusefs.MountPoint) bool { return m.Dir == path }
		if slices.ContainsFunc(mounts, on) {
			// What is in a writable view can be used though the image is dead.
			view := slices.ContainsFunc(mounts, func(m fusefs.MountPoint) bool { return on(m) && m.Shown != "" })
			if view || ctx.Err() != nil || RemoveDead(ctx, path) != nil {
				continue
			}
		}
		sweepOne(path)
	}
}

// RemoveDead unmounts the images on a directory that nobody serves any more: see
// [fusefs.RemoveDead]. What their holders left behind, and what was made to have
// one below a writable view, is removed.
func RemoveDead(ctx context.Context, dir string) error {
	removed, err := fusefs.RemoveDead(ctx, dir)
	for _, m := range removed {
		Forget(ctx, m)
		if m.Shown != "" {
			RemoveMade(m.Dir)
		}
	}
	return err
}

// RemoveLeft removes what a process has left that was killed while it mounted: the mount on
// dir, or with "" the directory that it has made, and the mount on that.
func RemoveLeft(dir string, others bool) {
	ctx, cancel := context.WithTimeout(context.Background(), sweepLimit)
	defer cancel()
	if dir != "" {
		_ = RemoveDead(ctx, dir) // else the next mount does it, or says why not
	} else if base, err := openBase(others); err == nil {
		sweep(ctx, base)
	}
}

// sweepLimit is how long sweeping may take.
const sweepLimit = 2 * time.Second

// sweepOne removes a directory that no process has locked.
func sweepOne(path string) {
	if !isMade(path) {
		return
	}
	dir, err := openMade(path)
	if err != nil {
		return
	}
	defer dir.Close()
	defer lockBase(filepath.Dir(path))()
	if unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && isAt(dir, path) {
		_ = unix.Rmdir(path) // what is not empty stays
	}
}

// A place is where directories to mount on can be made.
type place struct {
	dir  string
	mode uint32 // of dir
}

// places are the places for directories to mount on, the best one first.
func places(others bool) []place {
	var all []place
	if run := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(run) {
		all = append(all, place{filepath.Join(run, "imgfs"), 0o700})
	}
	if os.Geteuid() == 0 {
		root := place{"/run/imgfs", 0o755}
		if others {
			return []place{root}
		}
		all = append(all, root)
		if userOutside() == 0 {
			return all
		}
	}
	user := strconv.Itoa(userOutside())
	return append(all, place{"/run/user/" + user + "/imgfs", 0o700}, place{filepath.Join(os.TempDir(), "imgfs-"+user), 0o700})
}

// userOutside is who this user is in the user namespace around this one: root of unshare
// -r has the directories of whoever that is.
func userOutside() int {
	text, _ := os.ReadFile("/proc/self/uid_map")
	for line := range strings.Lines(string(text)) {
		var first, outside, n int
		if _, err := fmt.Sscan(line, &first, &outside, &n); err == nil && os.Geteuid() >= first && os.Geteuid()-first < n {
			return outside + os.Geteuid() - first
		}
	}
	return os.Geteuid()
}

// openBase returns the first place that there is, or that can be made, and that
// nobody but this user, or root, can change.
func openBase(others bool) (string, error) {
	var first error
	for _, p := range places(others) {
		base, err := p.open()
		if err == nil {
			return base, nil
		}
		if first == nil || !errors.Is(err, os.ErrNotExist) {
			first = err
		}
	}
	return "", first
}

// open makes the directory of a place, if it is not there, and returns its path
// without symlinks.
func (p place) open() (string, error) {
	above, err := filepath.EvalSymlinks(filepath.Dir(p.dir))
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Stat(above, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: above, Err: err}
	}
	trusted := int(st.Uid) == os.Geteuid() || st.Uid == 0 || above == "/tmp" && userOutside() != os.Geteuid() // where root is nobody
	if othersWrite := st.Mode&0o022 != 0 && st.Mode&unix.S_ISVTX == 0; othersWrite || !trusted {
		return "", fmt.Errorf("%s can be changed by others", above)
	}
	dir := filepath.Join(above, filepath.Base(p.dir))
	switch err := unix.Mkdir(dir, p.mode); {
	case err == nil:
		if err := unix.Chmod(dir, p.mode); err != nil { // whatever the umask is
			return "", &os.PathError{Op: "chmod", Path: dir, Err: err}
		}
	case !errors.Is(err, unix.EEXIST):
		return "", &os.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	if err := unix.Lstat(dir, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return "", fmt.Errorf("%s is not a directory", dir)
	case int(st.Uid) != os.Geteuid():
		return "", fmt.Errorf("%s belongs to user %d", dir, st.Uid)
	case uint32(st.Mode)&0o777&^p.mode != 0:
		return "", fmt.Errorf("%s is open to others", dir)
	case strings.Contains(dir, "\n"):
		return "", fmt.Errorf("%q has a newline in it", dir)
	}
	return dir, nil
}
