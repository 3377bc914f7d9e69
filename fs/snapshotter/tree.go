package snapshotter

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// mounted returns where a chain is mounted, and mounts it if it is not. That goes on after
// ctx has ended, up to a bound, for others that want it.
func (s *Snapshotter) mounted(ctx context.Context, c *chain) (string, error) {
	if err := c.lockMounting(ctx); err != nil {
		return "", err
	}
	defer c.unlockMounting()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.MountTimeout)
	defer cancel()
	if s.isRemoved(c) {
		return "", fmt.Errorf("chain %s: it was removed: %w", c.id, errdefs.ErrNotFound)
	}
	state, err := s.trees.State(ctx, c.tree())
	if err != nil {
		return "", fmt.Errorf("chain %s: %w", c.id, err)
	}
	switch state {
	case Live:
		s.setMounted(c, true)
		return c.tree(), nil
	case Dead:
		if err := s.trees.Unmount(ctx, c.tree()); err != nil {
			return "", fmt.Errorf("chain %s: a tree that nobody serves: %w", c.id, err)
		}
		s.setMounted(c, false)
	}
	if err := s.mount(ctx, c); err != nil {
		s.count(func(n *Stats) { n.MountFailures++ })
		return "", err
	}
	s.count(func(n *Stats) {
		n.Mounts++
		if state == Dead {
			n.Mended++
		}
	})
	s.setMounted(c, true)
	return c.tree(), nil
}

// mount mounts a chain as a part of one of the images that have it.
func (s *Snapshotter) mount(ctx context.Context, c *chain) error {
	if !c.isReady() {
		// Waiting is for Stat: who is here may have locks.
		return fmt.Errorf("chain %s: its layers have not been indexed yet: %w", c.id, errdefs.ErrUnavailable)
	}
	if err := c.makeDirs(); err != nil { // they may be lost with the power
		return fmt.Errorf("chain %s: %w", c.id, err)
	}
	var errs []error
	for _, src := range s.sources(c) {
		err := s.trees.Mount(ctx, src.Image, src.Layers, c.tree())
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", describe(src.Image), err))
		if ctx.Err() != nil {
			break
		}
	}
	return fmt.Errorf("chain %s cannot be mounted: %w: %w", c.id, errdefs.ErrUnavailable, errors.Join(errs...))
}

// retire unmounts a chain that no snapshot needs, and removes its directories. A chain that
// is wanted again meanwhile stays.
func (s *Snapshotter) retire(ctx context.Context, c *chain) error {
	if err := c.lockMounting(ctx); err != nil {
		return err
	}
	defer c.unlockMounting()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.MountTimeout)
	defer cancel()
	if unused, err := s.isUnused(ctx, c); err != nil || !unused {
		return err
	}
	state, err := s.trees.State(ctx, c.tree())
	if err == nil && state != Absent {
		if err = s.trees.Unmount(ctx, c.tree()); err == nil {
			s.count(func(n *Stats) { n.Unmounts++ })
		}
	}
	if err != nil {
		return fmt.Errorf("chain %s: %w", c.id, err)
	}
	s.setMounted(c, false)

	c.mu.Lock()
	defer c.mu.Unlock()
	if unused, err := s.isUnused(ctx, c); err != nil || !unused {
		return err
	}
	if err := c.erase(); err != nil {
		return fmt.Errorf("chain %s: %w", c.id, err)
	}
	s.drop(c)
	return nil
}

// drop forgets a chain whose directories have been removed, and stops passes that no other
// chain needs.
func (s *Snapshotter) drop(c *chain) {
	s.mu.Lock()
	c.removed = true
	delete(s.chains, c.id)
	s.mu.Unlock()
	for _, src := range c.record.Sources { // nobody changes it any more
		if len(s.chainsOf(src.Image)) == 0 {
			s.passes.stop(src.Image)
		}
	}
}

func (s *Snapshotter) isRemoved(c *chain) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.removed
}

// isUnused reports whether a chain is there that no snapshot needs.
func (s *Snapshotter) isUnused(ctx context.Context, c *chain) (bool, error) {
	if s.isRemoved(c) {
		return false, nil
	}
	unused := true
	err := s.Walk(ctx, func(context.Context, snapshots.Info) error {
		unused = false
		return nil
	}, fmt.Sprintf("labels.%q==%s", snapshots.LabelSnapshotRef, c.id))
	return unused, err
}

func (s *Snapshotter) setMounted(c *chain, mounted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.mounted = mounted
}
