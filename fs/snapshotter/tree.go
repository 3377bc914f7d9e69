package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// unmountTimeout bounds how long unmounting may take.
const unmountTimeout = time.Minute

// errMounting is why somebody is not waited for any longer.
var errMounting = fmt.Errorf("it takes long to mount, as when its layers have to be read again; that goes on, try again later: %w", errdefs.ErrUnavailable)

// A mounting looks after the mount of a chain, for all that want it at the time.
type mounting struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when err is set
	err    error

	stopped bool // by stopMounting; Snapshotter.mu is held
}

// mounted returns where a chain is mounted, and mounts it if it is not. If ctx ends before
// that is done it goes on, up to a bound, for others that want it.
func (s *Snapshotter) mounted(ctx context.Context, c *chain) (string, error) {
	for {
		m, err := s.beginMounting(ctx, c)
		if err != nil {
			return "", err
		}
		select {
		case <-m.done:
		case <-ctx.Done():
			return "", fmt.Errorf("chain %s: %w", c.id, context.Cause(ctx))
		}
		// One that was stopped may have been joined by somebody whose snapshot is newer than
		// that: then the chain is mounted again, or it is gone.
		if m.err == nil || !s.wasStopped(m) {
			return c.tree(), m.err
		}
	}
}

// beginMounting begins to look after the mount of a chain, or joins who does.
func (s *Snapshotter) beginMounting(ctx context.Context, c *chain) (*mounting, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, errClosed
	case c.now != nil:
		return c.now, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.MountTimeout)
	m := &mounting{cancel: cancel, done: make(chan struct{})}
	c.now = m
	s.mountings.Go(func() {
		defer close(m.done)
		defer cancel()
		m.err = s.lookAfter(ctx, c)
	})
	return m, nil
}

// lookAfter mounts a chain if it is not mounted, or by nobody any more.
func (s *Snapshotter) lookAfter(ctx context.Context, c *chain) error {
	err := c.lockMounting(ctx)
	if err == nil {
		defer c.unlockMounting()
	}
	// Who comes when the lock is free does not rely on what was seen before that.
	defer s.endMounting(c)
	if err != nil {
		return fmt.Errorf("chain %s: %w: %w", c.id, errdefs.ErrUnavailable, err)
	}
	if s.isRemoved(c) {
		return fmt.Errorf("chain %s: it was removed: %w", c.id, errdefs.ErrNotFound)
	}
	state, err := s.trees.State(ctx, c.tree())
	if err != nil {
		return fmt.Errorf("chain %s: %w", c.id, err)
	}
	switch state {
	case Live:
		s.setMounted(c, true)
		return nil
	case Dead:
		if err := s.trees.Unmount(ctx, c.tree()); err != nil {
			return fmt.Errorf("chain %s: a tree that nobody serves: %w", c.id, err)
		}
		s.setMounted(c, false)
	}
	if err := s.mount(ctx, c); err != nil {
		s.count(func(n *Stats) { n.MountFailures++ })
		return err
	}
	s.count(func(n *Stats) {
		n.Mounts++
		if state == Dead {
			n.Mended++
		}
	})
	s.setMounted(c, true)
	return nil
}

func (s *Snapshotter) endMounting(c *chain) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.now = nil
}

// stopMounting has whoever mounts a chain give up, which no snapshot needs.
func (s *Snapshotter) stopMounting(c *chain) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.now != nil {
		c.now.stopped = true
		c.now.cancel()
	}
}

func (s *Snapshotter) wasStopped(m *mounting) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return m.stopped
}

// stopMountings has all of them give up, and waits for their end. No others begin.
func (s *Snapshotter) stopMountings() {
	s.mu.Lock()
	s.closed = true
	for _, c := range s.chains {
		if c.now != nil {
			c.now.cancel()
		}
	}
	s.mu.Unlock()
	s.mountings.Wait()
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
	if unused, err := s.isUnused(ctx, c); err != nil || !unused {
		return err
	}
	s.stopMounting(c)
	if err := c.lockMounting(ctx); err != nil {
		return err
	}
	defer c.unlockMounting()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unmountTimeout)
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
