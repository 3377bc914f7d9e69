//go:build linux

package fusefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// deadLimit is how long a mount may take to say that it is dead. The kernel says it by
// itself: what takes longer waits for a server, and is not dead.
const deadLimit = 300 * time.Millisecond

// maxStacked is how many dead mounts are taken from one directory.
const maxStacked = 100

// RemoveDead unmounts the images on a directory that no process serves any more, those
// that lie under each other as well, and their bind mounts. Who still uses one is no
// reason to leave it. A writable view of a dead image goes too, unless it is in use: what
// was written can still be read there. What is alive stays, or waits for its server, or is
// not an image, or another user's.
//
// Errors are of type *[Error]: ErrBusy is for a dead image in which something else is
// mounted, or whose view is in use. A directory that is not there is none.
func RemoveDead(ctx context.Context, dir string) (removed []MountPoint, err error) {
	for range maxStacked {
		at, err := openPlace(ctx, dir, 0)
		if err != nil {
			return removed, nil // whoever mounts there says so
		}
		m, err := at.mountAt()
		at.close() // it would keep the mount busy
		if err != nil || m == nil {
			return removed, nil
		}
		table, err := mountTable()
		if err != nil {
			return removed, mountError("unmount", dir, err)
		}
		point, err := removeDead(ctx, table, *m)
		if err != nil || point.Dir == "" {
			return removed, mountError("unmount", dir, err)
		}
		removed = append(removed, point)
	}
	return removed, nil
}

// removeDead unmounts what is mounted, if it is dead. It returns what that was; with an
// empty Dir it has left it.
func removeDead(ctx context.Context, table []mountEntry, m mountEntry) (MountPoint, error) {
	image, view := m, mountEntry{}
	if below, ok := imageBelow(table, m); ok {
		image, view = below, m
	} else if over, ok := overlayOf(table, m); ok && m.fsType == fsType {
		view = over
	}
	if image.fsType != fsType || !image.ours() && !HasSysAdmin() || !image.isDead(ctx) && !(view.fsType == fuseOverlayType && view.isDead(ctx)) {
		return MountPoint{}, nil
	}
	point := image.point()
	if view.id == "" {
		return point, take(ctx, image, false)
	}
	point.Shown = view.dir
	return point, unmountBoth(ctx, view, image, false)
}

// isDead reports whether nobody serves a mount of FUSE any more. It is false for one that
// another mount hides: nothing can be asked of it.
func (m mountEntry) isDead(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, deadLimit)
	defer cancel()
	root, err := openPlace(ctx, m.dir, unix.O_NOFOLLOW)
	if err != nil {
		return false
	}
	if root.mount != m.id {
		root.close()
		return false
	}
	err = askErr(ctx, func() error {
		defer root.close()
		return m.asOwner(func() error {
			var st unix.Statfs_t
			return unix.Fstatfs(root.fd, &st)
		})
	})
	return isDead(err)
}

// asOwner calls f, a system call, with the ids of the user who mounted, if this is root and
// the mount lets nobody else in: to others, root too, the kernel answers in place of the
// server, whether there is one or not. The thread that has had those ids ends.
func (m mountEntry) asOwner(f func() error) error {
	user, bad := strconv.Atoi(m.owner)
	group, worse := strconv.Atoi(m.group)
	if m.open || os.Geteuid() != 0 || user == 0 || bad != nil || worse != nil {
		return f()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock it
		// Go's own functions change all threads.
		_, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(group), uintptr(group), uintptr(group))
		if errno == 0 {
			_, _, errno = unix.RawSyscall(unix.SYS_SETRESUID, uintptr(user), uintptr(user), uintptr(user))
		}
		if errno != 0 {
			done <- fmt.Errorf("as user %d: %w", user, errno)
			return
		}
		done <- f()
	}()
	return <-done
}

// take unmounts one mount, by ourselves or by fusermount3. A dead one goes though it is in
// use, which is of no use to anybody, and so do its bind mounts.
func take(ctx context.Context, m mountEntry, lazy bool) error {
	a := newAttached(ctx, m, "")
	h := thisHost()
	if h.root || h.sysAdmin {
		if err := a.take(ctx, lazy); !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	if !m.ours() || m.fsType == overlayType {
		return fmt.Errorf("%w: %s mounted it", ErrForeign, m.ownerName())
	}
	var err error
	if a.helper, err = h.helper(); err != nil {
		return err
	}
	return a.take(ctx, lazy)
}

func (a attached) take(ctx context.Context, lazy bool) error {
	before, err := mountTable()
	if err != nil {
		return err
	}
	err = a.unmountNow(ctx, lazy)
	if errors.Is(err, ErrBusy) {
		if a.entry.isDead(ctx) {
			err = a.bury(ctx)
		} else {
			err = a.unmount(ctx, lazy)
		}
	}
	if err == nil {
		a.buryCopies(ctx, before)
	}
	return err
}

// bury unmounts a dead mount that is in use, unless something is mounted in it that is not
// dead.
func (a attached) bury(ctx context.Context) error {
	table, err := mountTable()
	if err != nil {
		return err
	}
	for _, in := range mountsWithin(table, a.entry.id) {
		if in.fsType != fsType || !in.isDead(ctx) {
			return fmt.Errorf("%w by a mount on %s", ErrBusy, in.dir)
		}
	}
	return a.unmount(ctx, true)
}

// buryCopies unmounts the bind mounts of a mount that is gone, if they are dead. They were
// in the table before: others may have got its device number by now. What keeps one is no
// error: it was not asked for.
func (a attached) buryCopies(ctx context.Context, before []mountEntry) {
	table, err := mountTable()
	if err != nil || a.entry.fsType != fsType {
		return
	}
	for _, m := range table {
		if m.device == a.entry.device && m.fsType == fsType && !isNew(before, m) && m.isDead(ctx) {
			_ = newAttached(ctx, m, a.helper).bury(ctx)
		}
	}
}

// mountsWithin returns what is mounted in a mount, by its id, and in those, the outer ones
// first.
func mountsWithin(table []mountEntry, id string) (within []mountEntry) {
	for _, m := range table {
		if m.parent == id && m.id != id {
			within = append(append(within, m), mountsWithin(table, m.id)...)
		}
	}
	return within
}
