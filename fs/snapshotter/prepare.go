package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
)

// Prepare makes an active snapshot. If labels ask for a chain that can be mounted, it makes a
// committed lazy snapshot of that in its place, and returns [errdefs.ErrAlreadyExists].
func (s *Snapshotter) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	base, err := apply(opts)
	if err != nil {
		return nil, err
	}
	if target := base.Labels[snapshots.LabelSnapshotRef]; target != "" {
		err := s.prepareLazy(ctx, target, key, parent, base)
		if err == nil {
			s.count(func(n *Stats) { n.Lazy++ })
			return nil, fmt.Errorf("snapshot %s is there, as a lazy one: %w", target, errdefs.ErrAlreadyExists)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		reason := reasonOf(err)
		if reason == Failed && errdefs.IsNotFound(err) { // the parent
			return nil, err
		}
		s.fellBack(target, reason, err)
	}
	return s.create(ctx, snapshots.KindActive, key, parent, base)
}

// fellBack notes why a layer is unpacked.
func (s *Snapshotter) fellBack(target string, reason Reason, err error) {
	s.count(func(n *Stats) { n.Fallbacks[reason]++ })
	s.debugf("chain %.100q is unpacked: %v", target, err)
}

// View makes a snapshot that cannot be written.
func (s *Snapshotter) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	base, err := apply(opts)
	if err != nil {
		return nil, err
	}
	return s.create(ctx, snapshots.KindView, key, parent, base)
}

// create makes an active snapshot, or one that cannot be written.
func (s *Snapshotter) create(ctx context.Context, kind snapshots.Kind, key, parent string, base snapshots.Info) ([]mount.Mount, error) {
	base.Labels = withRef(base.Labels, "")
	// containerd has a lock.
	ctx, cancel := context.WithTimeoutCause(ctx, s.opts.MountWait, errMounting)
	defer cancel()
	lower, err := s.lower(ctx, parent)
	if err != nil {
		return nil, err
	}
	uid, gid, err := rootOwner(base.Labels, lower)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("parent snapshot %q: it was removed meanwhile: %w: %w", parent, errdefs.ErrNotFound, err)
	}
	if err != nil {
		return nil, err
	}
	var made storage.Snapshot
	err = s.meta.WithTransaction(ctx, true, func(ctx context.Context) error {
		if made, err = storage.CreateSnapshot(ctx, kind, key, parent, whole(base)); err != nil {
			return err
		}
		return s.makeSnapshotDirs(made.ID, kind, uid, gid)
	})
	if err != nil {
		return nil, err // directories are swept later
	}
	// Its parents stay from now on. Before that they may have been removed, unmounted and made
	// again by others.
	if lower, err = s.lower(ctx, parent); err != nil {
		return nil, errors.Join(err, s.Remove(context.WithoutCancel(ctx), key))
	}
	return s.mounts(made.ID, kind, lower, base.Labels), nil
}

// makeSnapshotDirs makes the directories of a new snapshot, in its transaction: an id of one
// that fails is given again.
func (s *Snapshotter) makeSnapshotDirs(id string, kind snapshots.Kind, uid, gid int) error {
	dir := s.root.path(snapshotsDir, id)
	if err := os.Mkdir(dir, 0o700); errors.Is(err, os.ErrExist) {
		if err := s.root.discard(id); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o700)
		if err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if err := makeDir(s.root.upper(id), 0o755); err != nil {
		return err
	}
	if uid != os.Geteuid() || gid != os.Getegid() {
		if err := os.Lchown(s.root.upper(id), uid, gid); err != nil {
			return err
		}
	}
	if kind != snapshots.KindActive {
		return nil
	}
	return makeDir(s.root.work(id), 0o711)
}

// makeDir makes a directory with this mode whatever the umask is.
func makeDir(name string, mode os.FileMode) error {
	if err := os.Mkdir(name, mode); err != nil {
		return err
	}
	return os.Chmod(name, mode)
}

// rootOwner returns whose the root directory of a snapshot is: root's of the user namespace
// that labels have, or that of the layer below.
func rootOwner(labels map[string]string, lower []string) (uid, gid int, err error) {
	users, groups := labels[snapshots.LabelSnapshotUIDMapping], labels[snapshots.LabelSnapshotGIDMapping]
	if users != "" || groups != "" {
		return mappedRoot(users, groups)
	}
	if len(lower) == 0 {
		return os.Geteuid(), os.Getegid(), nil
	}
	st, err := os.Stat(lower[0])
	if err != nil {
		return 0, 0, err
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, fmt.Errorf("%s: its owner is not known", lower[0])
	}
	return int(owner.Uid), int(owner.Gid), nil
}
