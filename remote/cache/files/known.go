package files

import (
	"context"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/remote/seal"
)

// An identity tells a file from all others that have been in its place. That of
// a file that cannot be told is the zero identity.
type identity struct {
	dev, ino, size uint64
	at             timestamp // of birth, or of change where there is none
}

// A checkedFile is a kept file that this process has compared with its digest.
type checkedFile struct {
	identity
	sealed *seal.Table
	// changed is the file's time of change before it was compared, or when
	// the Cache changed it last itself; guarded by knowledge.mu.
	changed timestamp
}

// A timestamp is a time as a file system has it.
type timestamp struct {
	sec  int64
	nsec int64
}

// A seen is what a file was at some moment.
type seen struct {
	identity
	changed timestamp
}

// identify returns the identity of an open file, and what stat(2) says of it.
func identify(f *os.File) (seen, os.FileInfo, error) {
	st, err := f.Stat()
	if err != nil {
		return seen{}, nil, err
	}
	return look(f), st, nil
}

// knows returns what is known of the file if it has been found to have the
// digest d.
func (k *knowledge) knows(d digest.Digest, now seen) *checkedFile {
	k.mu.Lock()
	defer k.mu.Unlock()
	if known := k.checked[d]; known != nil && known.identity == now.identity {
		return known
	}
	return nil
}

// know notes that a file has the digest d, and its bytes are those sealed; was is
// what the file was before they were.
func (k *knowledge) know(d digest.Digest, was seen, sealed *seal.Table) *checkedFile {
	known := &checkedFile{identity: was.identity, sealed: sealed, changed: was.changed}
	if was.identity == (identity{}) {
		return known
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.checked[d] = known
	return known
}

// unchanged reports whether a file is what it was when it was checked.
func (k *knowledge) unchanged(known *checkedFile, now seen) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return known.identity != (identity{}) && now == seen{known.identity, known.changed}
}

func (k *knowledge) forget(d digest.Digest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.checked, d)
}

// touch makes now the last use of a known kept file.
func (c *Cache) touch(x *Kept, now time.Time) {
	k, name := &c.known, c.dir.Name(directory.Kept, x.digest)
	was, _, err := identify(x.f)
	same := err == nil && k.unchanged(x.known, was)
	now = now.Truncate(touchStep)
	// If it fails it only goes earlier.
	_ = c.dir.Files().Touch(name, now)
	is, st, err := identify(x.f)
	if err != nil || !c.dir.Files().Is(x.f, name) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if same && st.ModTime().Equal(now) { // else somebody has written meanwhile
		x.known.changed = is.changed
	}
	// Where files have no time of birth this has changed the identity.
	x.known.identity = is.identity
}

// keyLocks are locks on digests. The zero keyLocks has none taken.
type keyLocks struct {
	mu    sync.Mutex
	taken map[digest.Digest]chan struct{} // closed when it is given back
}

// lock takes the lock on d, and waits for it until ctx ends or the Cache is
// closed.
func (k *knowledge) lock(ctx context.Context, l *keyLocks, d digest.Digest) (unlock func(), err error) {
	for {
		if err := k.d.Interrupted(ctx); err != nil {
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
		case <-k.d.Closing():
			return nil, fs.ErrClosed
		}
	}
}
