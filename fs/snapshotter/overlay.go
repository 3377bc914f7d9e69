package snapshotter

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
	"github.com/moby/sys/user"
)

// Mounts returns the mounts of an active snapshot or one of View, and mounts what they need
// below them.
func (s *Snapshotter) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	var made storage.Snapshot
	var info snapshots.Info
	err := s.meta.WithTransaction(ctx, false, func(ctx context.Context) (err error) {
		if made, err = storage.GetSnapshot(ctx, key); err != nil {
			return err
		}
		_, info, _, err = storage.GetInfo(ctx, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	lower, err := s.lower(ctx, info.Parent)
	if err != nil {
		return nil, err
	}
	return s.mounts(made.ID, made.Kind, lower, info.Labels), nil
}

// lower returns the directories that are below a child of a snapshot, the topmost first. The
// first lazy snapshot is the last one: its mount has all layers below.
func (s *Snapshotter) lower(ctx context.Context, parent string) (dirs []string, err error) {
	var top *chain
	err = s.meta.WithTransaction(ctx, false, func(ctx context.Context) error {
		for name := parent; name != "" && top == nil; {
			id, info, _, err := storage.GetInfo(ctx, name)
			if err != nil {
				return fmt.Errorf("parent snapshot %q: %w", name, err)
			}
			if lazy := lazyChain(info); lazy != "" {
				top = s.chain(lazy)
			} else {
				dirs = append(dirs, s.root.upper(id))
			}
			name = info.Parent
		}
		return nil
	})
	if err != nil || top == nil {
		return dirs, err
	}
	tree, err := s.mounted(ctx, top)
	if err != nil {
		return nil, err
	}
	return append(dirs, tree), nil
}

// mounts returns the mounts of a snapshot over directories, as containerd's snapshotter
// overlayfs has them.
func (s *Snapshotter) mounts(id string, kind snapshots.Kind, lower []string, labels map[string]string) []mount.Mount {
	options := s.idmapOptions(labels)
	bind := func(source, access string) []mount.Mount {
		return []mount.Mount{{Type: "bind", Source: source, Options: append(options, access, "rbind")}}
	}
	switch {
	case kind == snapshots.KindView && len(lower) == 1:
		return bind(lower[0], "ro")
	case kind == snapshots.KindView && len(lower) == 0:
		return bind(s.root.upper(id), "ro")
	case len(lower) == 0:
		return bind(s.root.upper(id), "rw")
	case kind == snapshots.KindActive:
		options = append(options, "workdir="+s.root.work(id), "upperdir="+s.root.upper(id))
	}
	options = append(options, "lowerdir="+strings.Join(lower, ":"))
	options = append(options, s.overlay...)
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: options}}
}

// idmapOptions has the mount map users and groups as a user namespace does.
func (s *Snapshotter) idmapOptions(labels map[string]string) (options []string) {
	if !s.opts.RemapIDs {
		return nil
	}
	for _, l := range []struct{ label, option string }{
		{snapshots.LabelSnapshotUIDMapping, "uidmap="}, {snapshots.LabelSnapshotGIDMapping, "gidmap="},
	} {
		if value, ok := labels[l.label]; ok {
			options = append(options, l.option+value)
		}
	}
	return options
}

// mappedRoot returns what root of a user namespace is outside of it. Mappings are as
// 0:100000:65536,65536:200000:1 has them; "" changes nothing.
func mappedRoot(users, groups string) (uid, gid int, err error) {
	var m user.IdentityMapping
	if m.UIDMaps, err = parseMapping(users); err == nil {
		m.GIDMaps, err = parseMapping(groups)
	}
	if err == nil {
		uid, gid, err = m.ToHost(0, 0)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("mapping of users %.200q and groups %.200q: %w", users, groups, err)
	}
	return uid, gid, nil
}

func parseMapping(text string) (all []user.IDMap, err error) {
	if text == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		inside, outside, size := uint32(0), uint32(0), uint32(0)
		if n, err := fmt.Sscanf(part+"\n", "%d:%d:%d\n", &inside, &outside, &size); n != 3 || err != nil {
			return nil, fmt.Errorf("%.60q is not three numbers: %w", part, errdefs.ErrInvalidArgument)
		}
		all = append(all, user.IDMap{ID: int64(inside), ParentID: int64(outside), Count: int64(size)})
	}
	return all, nil
}
