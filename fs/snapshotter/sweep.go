package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
)

// Remove removes a snapshot that has no children. Its directories, and the mount of a chain
// that no other snapshot needs, go soon after: containerd removes with a lock held that
// everything else waits for. Cleanup waits for that.
func (s *Snapshotter) Remove(ctx context.Context, key string) error {
	err := s.meta.WithTransaction(ctx, true, func(ctx context.Context) error {
		_, _, err := storage.Remove(ctx, key)
		return err
	})
	if err == nil {
		s.sweepSoon()
	}
	return err
}

// Cleanup removes what no snapshot needs: directories, and mounts with their records. What
// cannot be removed is left for the next time and told to Warnf.
func (s *Snapshotter) Cleanup(ctx context.Context) error {
	s.sweep(ctx)
	return context.Cause(ctx)
}

// sweepSoon has the sweeper work.
func (s *Snapshotter) sweepSoon() {
	select {
	case s.wake <- struct{}{}:
	default: // it is about to begin
	}
}

// sweeper sweeps whenever it is woken, until ctx ends.
func (s *Snapshotter) sweeper(ctx context.Context) {
	defer close(s.ended)
	for {
		select {
		case <-s.wake:
			s.sweep(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// sweep removes what no snapshot needs.
func (s *Snapshotter) sweep(ctx context.Context) {
	s.sweeping.Lock()
	defer s.sweeping.Unlock()
	for _, step := range []func(context.Context) error{s.sweepSnapshots, s.sweepChains} {
		if err := step(ctx); err != nil && ctx.Err() == nil {
			s.warnf("cleaning up: %v", err)
		}
	}
}

// sweepSnapshots removes directories of snapshots that are gone.
func (s *Snapshotter) sweepSnapshots(ctx context.Context) error {
	// While a transaction that could write is open nobody makes such a directory. Directories
	// are moved in it, as their ids may be given again, and deleted when others can write.
	within, transaction, err := s.meta.TransactionContext(ctx, true)
	if err != nil {
		return err
	}
	err = errors.Join(s.discardUnused(within), transaction.Rollback())
	return errors.Join(err, s.root.removeDiscarded())
}

func (s *Snapshotter) discardUnused(ctx context.Context) error {
	ids, err := storage.IDMap(ctx)
	if err != nil && !errdefs.IsNotFound(err) { // nothing was ever written
		return err
	}
	all, err := os.ReadDir(s.root.path(snapshotsDir))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range all {
		if _, ok := ids[e.Name()]; !ok {
			errs = append(errs, s.root.discard(e.Name()))
		}
	}
	return errors.Join(errs...)
}

// sweepChains ends the mounts that no snapshot needs, and removes their directories.
func (s *Snapshotter) sweepChains(ctx context.Context) error {
	// Directories are listed first: what is there then and not known is of a process that was
	// killed.
	dirs, err := os.ReadDir(s.root.path(chainsDir))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range dirs {
		id, err := parseChain("sha256:" + e.Name())
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: it is none of ours", s.root.path(chainsDir, e.Name())))
			continue
		}
		s.chain(id)
	}
	used, err := s.used(ctx)
	if err != nil {
		return err
	}
	for _, c := range s.allChains() {
		if !used[c.id] && ctx.Err() == nil {
			errs = append(errs, s.retire(ctx, c))
		}
	}
	return errors.Join(errs...)
}

func (s *Snapshotter) allChains() []*chain {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*chain, 0, len(s.chains))
	for _, c := range s.chains {
		all = append(all, c)
	}
	return all
}
