package blobcache

import (
	"context"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// An identity tells a file from all others that have been in its place. That of
// a file that cannot be told is the zero identity.
type identity struct {
	major, minor uint32
	ino          uint64
	size         uint64
	at           unix.StatxTimestamp // of birth, or of change where there is none
}

// identify returns the identity of an open file, and what stat(2) says of it.
func identify(f *os.File) (identity, os.FileInfo, error) {
	st, err := f.Stat()
	if err != nil {
		return identity{}, nil, err
	}
	var x unix.Statx_t
	// Kernels and sandboxes without statx(2) cost a check each time.
	if unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &x) != nil {
		return identity{}, st, nil
	}
	id := identity{major: x.Dev_major, minor: x.Dev_minor, ino: x.Ino, size: x.Size, at: x.Btime}
	if x.Mask&unix.STATX_BTIME == 0 {
		id.at = x.Ctime
	}
	return id, st, nil
}

// knows reports whether the file with this identity has the digest d.
func (k *contents) knows(d digest.Digest, id identity) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	known, ok := k.checked[d]
	return ok && known == id
}

// know notes that the file with this identity has the digest d.
func (k *contents) know(d digest.Digest, id identity) {
	if id == (identity{}) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.checked[d] = id
}

func (k *contents) forget(d digest.Digest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.checked, d)
}

// touchContent makes now the last use of a known content.
func (c *Cache) touchContent(x *Content, d digest.Digest, now time.Time) {
	name := c.path(contentsDir, d)
	// If it fails it only goes earlier.
	_ = c.files.Touch(name, now)
	// Where files have no time of birth this has changed the identity.
	if id, _, err := identify(x.f); err == nil && c.files.Is(x.f, name) {
		c.contents.know(d, id)
	}
}

// keyLocks are locks on digests. The zero keyLocks has none taken.
type keyLocks struct {
	mu    sync.Mutex
	taken map[digest.Digest]chan struct{} // closed when it is given back
}

// lock takes the lock on d, and waits for it until ctx ends or the Cache is
// closed.
func (k *contents) lock(ctx context.Context, l *keyLocks, d digest.Digest) (unlock func(), err error) {
	for {
		if err := k.interrupted(ctx); err != nil {
			return nil, err
		}
		l.mu.Lock()
		other := l.taken[d]
		if other == nil {
			mine := make(chan struct{})
			if l.taken == nil {
				l.taken = map[digest.Digest]chan struct{}{}
			}
			l.taken[d] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.taken, d)
				l.mu.Unlock()
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-k.closing:
			return nil, fs.ErrClosed
		}
	}
}
