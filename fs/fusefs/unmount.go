//go:build linux

package fusefs

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// passing is how long a mount may be in use before Unmount says so. A process
// that was just forked holds what its parent had open until it executes its
// program, and one that was killed until it has ended.
const passing = 500 * time.Millisecond

// Unmount unmounts the image that is mounted on a directory, whichever process
// serves it, dead ones as well. A writable view of it goes first, and the directory may
// be that of the view. Errors are of type *[Error]: ErrNotMounted for
// everything that is not an imgfs mount, ErrForeign for that of another user,
// ErrBusy with the processes and mounts that use it, as far as this user can see
// them. Processes do not keep a dead one, whose bind mounts go with it.
func Unmount(ctx context.Context, dir string) error {
	return mountError("unmount", dir, unmountDir(ctx, dir, false))
}

// UnmountLazy is like Unmount, but takes the image out of the directory tree
// even if it is in use. It is served on to those who use it.
func UnmountLazy(ctx context.Context, dir string) error {
	return mountError("unmount", dir, unmountDir(ctx, dir, true))
}

func unmountDir(ctx context.Context, dir string, lazy bool) error {
	at, err := openPlace(ctx, dir, 0)
	if err != nil {
		return dirError(err)
	}
	m, err := at.mountAt()
	at.close() // it would keep the mount busy
	switch {
	case err != nil:
		return err
	case m == nil:
		return ErrNotMounted
	}
	table, err := mountTable()
	if err != nil {
		return err
	}
	if image, ok := imageBelow(table, *m); ok {
		return unmountBoth(ctx, *m, image, lazy)
	}
	switch view, ok := overlayOf(table, *m); {
	case ok && m.fsType == fsType:
		return unmountBoth(ctx, view, *m, lazy)
	case m.fsType != fsType:
		return fmt.Errorf("%w: %s of type %s", ErrNotMounted, m.source, m.fsType)
	}
	return take(ctx, *m, lazy)
}

// unmount takes a mount away, and no other one, wherever it is by now. If it
// is gone, there is nothing to do.
func (a attached) unmount(ctx context.Context, lazy bool) error {
	err := a.unmountNow(ctx, lazy)
	for end := time.Now().Add(passing); errors.Is(err, ErrBusy) && time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return err
		case <-time.After(passing / 50):
		}
		err = a.unmountNow(ctx, lazy)
	}
	if !errors.Is(err, ErrBusy) {
		return err
	}
	if who := a.holders(ctx); len(who) > 0 {
		return fmt.Errorf("%w by %s", err, strings.Join(who, ", "))
	}
	return err
}

// find returns where the mount is now. Its directory may have another path than
// when it was mounted. When it is gone its numbers are soon those of another mount, which
// may be of the same image.
func (a attached) find() (mountEntry, bool) {
	table, err := mountTable()
	if err != nil {
		return mountEntry{}, false
	}
	m, ok := withID(table, a.entry.id)
	if !ok || m.device != a.entry.device || m.source != a.entry.source {
		return m, false
	}
	return m, m.dir == a.entry.dir || a.unique != 0 && m.uniqueID(context.Background()) == a.unique
}

// uniqueID returns a number of a mount that no other one ever gets; 0 if it cannot be told,
// as before Linux 6.8. The server is not asked.
func (m mountEntry) uniqueID(ctx context.Context) (id uint64) {
	root, err := openPlace(ctx, m.dir, unix.O_NOFOLLOW)
	if err != nil {
		return 0
	}
	defer root.close()
	if root.mount != m.id {
		return 0 // something is mounted over it, or it is gone
	}
	return root.uniqueID(m)
}

// uniqueID is that of a mount by its root.
func (p *place) uniqueID(m mountEntry) (id uint64) {
	_ = m.asOwner(func() error {
		var st unix.Statx_t
		err := unix.Statx(p.fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID_UNIQUE, &st)
		if err == nil && st.Mask&unix.STATX_MNT_ID_UNIQUE != 0 {
			id = st.Mnt_id
		}
		return err
	})
	return id
}

func (a attached) unmountNow(ctx context.Context, lazy bool) error {
	m, ok := a.find()
	if !ok {
		return nil
	}
	top, err := openPlace(ctx, m.dir, unix.O_NOFOLLOW)
	if err != nil {
		return a.unlessGone(dirError(err))
	}
	defer func() {
		if top != nil {
			top.close()
		}
	}()
	if top.mount != m.id {
		return fmt.Errorf("%w by what is mounted over it", ErrBusy)
	}
	if now := top.uniqueID(m); now != 0 && a.unique != 0 && now != a.unique {
		return nil // it is another one by now, on the same directory
	}
	if lazy && a.helper == "" {
		return a.unlessGone(askErr(ctx, func() error { return unix.Unmount(top.link(), unix.MNT_DETACH) }))
	}
	parent, err := openParent(ctx, m.dir)
	if err != nil {
		return a.unlessGone(dirError(err))
	}
	defer parent.close()
	top.close() // it would keep the mount busy
	top = nil
	name := filepath.Base(m.dir)
	if a.helper == "" {
		path := parent.link() + "/" + name
		return a.unlessGone(askErr(ctx, func() error { return unix.Unmount(path, unix.UMOUNT_NOFOLLOW) }))
	}
	args := []string{"-u", "--", name}
	if lazy {
		args = []string{"-u", "-z", "--", name}
	}
	_, err = runHelper(ctx, a.helper, parent, nil, args...)
	switch _, there := a.find(); {
	case !there: // somebody else may have been faster
		return nil
	case err == nil:
		return fmt.Errorf("%s has not unmounted it", filepath.Base(a.helper))
	case strings.Contains(err.Error(), "busy"): // fusermount3 has no translations
		return ErrBusy
	}
	return err
}

// unlessGone returns an error of unmounting, none if somebody else was faster: its server,
// too, unmounts, and removes the directory if that was made.
func (a attached) unlessGone(err error) error {
	switch {
	case err == nil, errors.Is(err, unix.EINVAL): // there is no mount any more
		return nil
	case errors.Is(err, unix.EBUSY):
		return ErrBusy
	}
	// Out of the mount table it is gone, though umount(2) may not have answered: it returns
	// when the kernel has forgotten the inodes, which takes it seconds for a million of them.
	if _, there := a.find(); !there {
		return nil
	}
	return err
}
