package podstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// lockPause is how long a process waits until it tries a lock again.
const lockPause = 10 * time.Millisecond

// until calls try until it does not say that the lock is taken, or ctx ends.
func until(ctx context.Context, try func() error) error {
	for {
		err := try()
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES):
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(lockPause):
		}
	}
}

// flock takes a lock of flock(2).
func flock(ctx context.Context, f *os.File) error {
	err := until(ctx, func() error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return nil
}

// writeMarkSize is the length of the mark in a lock file of containers/storage
// (pkg/lockfile, lastWriterIDSize).
const writeMarkSize = 64

// locked calls change with a lock file of containers/storage locked for writing, and marks
// the file afterwards, so that processes which have read the list before read it again. The
// lock is one of fcntl(2): it keeps out other processes only, and the caller has another one
// for this process.
func locked(ctx context.Context, path string, change func() error) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close() // unlocks
	err = until(ctx, func() error {
		return unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	})
	if err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	if err := change(); err != nil {
		return err
	}
	mark := make([]byte, writeMarkSize)
	_, _ = rand.Read(mark) // never fails
	_, err = f.WriteAt(mark, 0)
	return err
}

// A Held is an image that no other process mounts, unmounts, adds or removes meanwhile.
type Held struct {
	store *Store
	layer string
	file  *os.File
}

// Hold waits until nobody else holds the image whose top layer is given, and holds it.
func (s *Store) Hold(ctx context.Context, layer string) (*Held, error) {
	path := s.Mountpoint(layer) + lockSuffix
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, err
		}
		if err := flock(ctx, f); err != nil {
			f.Close()
			return nil, err
		}
		if isAt(f, path) {
			return &Held{s, layer, f}, nil
		}
		f.Close() // who held it has removed it
	}
}

// tryHold is Hold that does not wait. It returns nil if the image is held.
func (s *Store) tryHold(layer string) *Held {
	path := s.Mountpoint(layer) + lockSuffix
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil || !isAt(f, path) {
		f.Close()
		return nil
	}
	return &Held{s, layer, f}
}

// Release lets others have the image. If the store does not have it, and nothing is mounted
// there, its directory goes.
func (h *Held) Release() {
	defer h.file.Close() // unlocks
	layers, err := readList[layerRecord](h.store.layersFile())
	if err != nil || hasLayer(layers, h.layer) {
		return
	}
	dir := h.store.Mountpoint(h.layer)
	if err := os.Remove(dir); err == nil || errors.Is(err, os.ErrNotExist) {
		_ = os.Remove(dir + lockSuffix)
	}
}

// isAt reports whether an open file has a path.
func isAt(f *os.File, path string) bool {
	var open, there unix.Stat_t
	return unix.Fstat(int(f.Fd()), &open) == nil && unix.Lstat(path, &there) == nil && open.Dev == there.Dev && open.Ino == there.Ino
}
