package snapshotter

import (
	"context"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"
)

// Stat returns what is known of a snapshot. Of a lazy one it waits until the pass over its
// layers has succeeded, and returns [errdefs.ErrUnavailable] if that has failed.
func (s *Snapshotter) Stat(ctx context.Context, key string) (snapshots.Info, error) {
	_, info, _, err := s.info(ctx, key)
	if err != nil {
		return snapshots.Info{}, err
	}
	if id := lazyChain(info); id != "" {
		if err := s.awaitIndexed(ctx, s.chain(id)); err != nil {
			return snapshots.Info{}, err
		}
	}
	return info, nil
}

// info returns what the database has of a snapshot.
func (s *Snapshotter) info(ctx context.Context, key string) (id string, info snapshots.Info, usage snapshots.Usage, err error) {
	err = s.meta.WithTransaction(ctx, false, func(ctx context.Context) error {
		id, info, usage, err = storage.GetInfo(ctx, key)
		return err
	})
	return id, info, usage, err
}

// Update changes the labels of a snapshot. The label that containerd finds lazy snapshots by
// stays as it is.
func (s *Snapshotter) Update(ctx context.Context, info snapshots.Info, fieldpaths ...string) (updated snapshots.Info, err error) {
	err = s.meta.WithTransaction(ctx, true, func(ctx context.Context) error {
		_, was, _, err := storage.GetInfo(ctx, info.Name)
		if err != nil {
			return err
		}
		if updated, err = storage.UpdateInfo(ctx, info, fieldpaths...); err != nil || lazyChain(updated) == lazyChain(was) {
			return err
		}
		updated.Labels = withRef(updated.Labels, lazyChain(was).String())
		updated, err = storage.UpdateInfo(ctx, updated, "labels")
		return err
	})
	return updated, err
}

// withRef returns labels with the one that containerd finds lazy snapshots by, or without it
// if ref is "".
func withRef(labels map[string]string, ref string) map[string]string {
	changed := make(map[string]string, len(labels)+1)
	for k, v := range labels {
		changed[k] = v
	}
	delete(changed, snapshots.LabelSnapshotRef)
	if ref != "" {
		changed[snapshots.LabelSnapshotRef] = ref
	}
	return changed
}

// Usage returns what a snapshot takes on the disk: nothing if it is a lazy one, and what is
// in its own directory if it is active.
func (s *Snapshotter) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	id, info, usage, err := s.info(ctx, key)
	if err != nil || info.Kind != snapshots.KindActive {
		return usage, err
	}
	return s.diskUsage(ctx, id)
}

func (s *Snapshotter) diskUsage(ctx context.Context, id string) (snapshots.Usage, error) {
	du, err := fs.DiskUsage(ctx, s.root.upper(id))
	return snapshots.Usage(du), err
}

// Walk calls fn for each snapshot that one of the filters matches, and waits for no pass. fn
// may call other methods.
func (s *Snapshotter) Walk(ctx context.Context, fn snapshots.WalkFunc, filters ...string) error {
	// fn is called when the transaction is over: one within another would wait for ever for a
	// writer that has to make the file larger, and waits for the first.
	var all []snapshots.Info
	err := s.meta.WithTransaction(ctx, false, func(ctx context.Context) error {
		return storage.WalkInfo(ctx, func(_ context.Context, info snapshots.Info) error {
			all = append(all, info)
			return nil
		}, filters...)
	})
	if err != nil && !errdefs.IsNotFound(err) { // nothing was ever written
		return err
	}
	for _, info := range all {
		if err := fn(ctx, info); err != nil {
			return err
		}
	}
	return nil
}

// Commit makes an active snapshot a committed one.
func (s *Snapshotter) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	base, err := apply(opts)
	if err != nil {
		return err
	}
	base.Labels = withRef(base.Labels, "")
	id, info, _, err := s.info(ctx, key)
	if err != nil {
		return err
	}
	var usage snapshots.Usage
	if info.Kind == snapshots.KindActive { // else CommitActive says what is wrong
		if usage, err = s.diskUsage(ctx, id); err != nil {
			return err
		}
	}
	return s.meta.WithTransaction(ctx, true, func(ctx context.Context) error {
		_, err := storage.CommitActive(ctx, key, name, usage, whole(base))
		return err
	})
}

// apply returns what options say.
func apply(opts []snapshots.Opt) (base snapshots.Info, err error) {
	for _, opt := range opts {
		if err := opt(&base); err != nil {
			return base, err
		}
	}
	return base, nil
}

// whole is an option that says all that base does.
func whole(base snapshots.Info) snapshots.Opt {
	return func(info *snapshots.Info) error {
		*info = base
		return nil
	}
}
