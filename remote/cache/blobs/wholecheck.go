package blobs

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/remote/cache/meta"
)

// Chunks are checked against an index, and the index may lie. So the digest of
// the whole blob is checked as soon as all of it is on disk, whoever brought
// it and in whatever order.

// A wholeCheck is what is known of a blob as a whole.
type wholeCheck struct {
	// settled: nothing is left to do, or somebody is at it.
	settled atomic.Bool
	// indexWrong: the chunks are not the blob.
	indexWrong atomic.Bool

	mu sync.Mutex
	// Of file, all chunks before next were there.
	file *blobFile
	next int64
}

// recall takes over what the mark says of these chunks.
func (s *blobState) recall() {
	m := s.c.meta.Mark(s.digest)
	if m.Table != s.table() {
		return // they may not be the blob's all the same
	}
	s.whole.settled.Store(m.Verification == meta.VerifiedWhole || m.Verification == meta.VerifiedWrong)
	s.whole.indexWrong.Store(m.Verification == meta.VerifiedWrong)
}

// table returns what marks call the chunks.
func (s *blobState) table() string { return hex.EncodeToString(s.sums[:]) }

// indexError returns an error if the chunks are known not to be the blob.
func (s *blobState) indexError() error {
	if !s.whole.indexWrong.Load() {
		return nil
	}
	return fmt.Errorf("blob %s: its chunks are as the index says, but the whole is not: the index is wrong: %w", s.digest, remote.ErrDigest)
}

// Refuted returns an error, which wraps remote.ErrDigest, if all of the blob has been
// there by now, each chunk as it should be, and was not the blob: then what was
// read of it before is not its content either.
func (b *Blob) Refuted() error { return b.s.indexError() }

// noteComplete begins to check the whole blob if all of it is there and that
// was not done before. It is called after anything was read or stored.
func (s *blobState) noteComplete(file *blobFile) {
	if s.whole.settled.Load() || !s.reachedEnd(file) || s.whole.settled.Swap(true) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.c.dir.Go(func() {
		if !s.checkWhole(s.ctx, file) {
			// Something was missing or wrong after all: when it has come.
			s.whole.settled.Store(false)
		}
	})
}

// reachedEnd looks for a chunk that is missing, from where it found one last.
func (s *blobState) reachedEnd(file *blobFile) bool {
	const batch = 1024
	w := &s.whole
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file != file {
		w.file, w.next = file, 0
	}
	for w.next < s.Layout.Chunks() {
		for _, word := range file.present(w.next, min(w.next+batch, s.Layout.Chunks())) {
			if word == 0 {
				return false
			}
			w.next++
		}
	}
	w.next = 0
	return true
}

// checkWhole checks the digest of the blob as it lies on disk. It returns
// false if that cannot be said.
func (s *blobState) checkWhole(ctx context.Context, file *blobFile) bool {
	if !file.complete() {
		return false
	}
	h := s.digest.Algorithm().Hash()
	if s.readChunks(ctx, file, h, nil) != nil {
		return false
	}
	if s.digestIs(h) {
		m := meta.Mark{Verification: meta.VerifiedWhole, When: time.Now(), Table: s.table()}
		s.c.meta.SetMark(s.digest, m, m.BetterThan)
		return true
	}
	// Either the index lied, or chunks have changed or gone on disk: these
	// very bytes must be right by the one and wrong by the other.
	h = s.digest.Algorithm().Hash()
	err := s.readChunks(ctx, file, h, func(k int64, data []byte) error {
		if !s.chunks.match(k, data) {
			if file.current() {
				s.dropWrong(file, k)
			}
			return errChanged
		}
		return nil
	})
	if err != nil || s.digestIs(h) {
		return false
	}
	s.c.condemnIndex(s)
	return true
}

func (s *blobState) digestIs(h hash.Hash) bool {
	return digest.NewDigest(s.digest.Algorithm(), h) == s.digest
}

// errChanged: the file has not what it had.
var errChanged = errors.New("the blob file has changed")

// readChunks reads all chunks of the file into h and one by one to check.
func (s *blobState) readChunks(ctx context.Context, file *blobFile, h hash.Hash, check func(k int64, data []byte) error) error {
	buf := make([]byte, min(s.Chunk, s.Size))
	for k := range s.Layout.Chunks() {
		if err := ctx.Err(); err != nil {
			return err
		}
		at, stop := s.Bounds(k)
		data := buf[:stop-at]
		if _, err := file.f.ReadAt(data, at); err != nil {
			return err
		}
		h.Write(data)
		if check != nil {
			if err := check(k, data); err != nil {
				return err
			}
		}
	}
	return nil
}

// condemnIndex makes sure that nobody gets anything of a blob again by the chunks
// of s: each was right, and all of them together were not the blob.
func (c *Cache) condemnIndex(s *blobState) {
	for _, other := range c.statesOf(s.digest) {
		if other.sums == s.sums {
			other.whole.indexWrong.Store(true)
			other.whole.settled.Store(true)
		}
	}
	c.meta.SetMark(s.digest, meta.Mark{Verification: meta.VerifiedWrong, When: time.Now(), Table: s.table()}, func(meta.Mark) bool { return true })
	c.Remove(s.digest)
	c.dir.Warnf("blob %s: every chunk of it is as its index says, but the whole is not: the index is wrong, and what was read of the blob cannot be trusted", s.digest)
}

// Remove removes what the directory has of a blob, whose digest must be
// valid. Who reads it goes on, and fetches it again.
func (c *Cache) Remove(d digest.Digest) {
	name := c.dir.Name(directory.Blobs, d)
	f, err := c.dir.Files().OpenFile(name, os.O_RDWR)
	if err != nil || c.dir.ReadOnly() != nil {
		return
	}
	defer f.Close()
	if err := directory.LockSoon(f); (err == nil || directory.NoLocks(err)) && c.dir.Files().Is(f, name) {
		blobfile.Retire(f)
		if err := c.dir.Files().Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.dir.DiskFailed(err)
		}
	}
}
