package blobs

import (
	"context"
	"crypto/sha256"
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
// it and in whatever order. Of a blob that is not cut into chunks of one size there are
// bytes that never are: whoever has the index sees to it, by Complete, Patched and
// Condemn.

// A wholeCheck is what is known of a blob as a whole.
type wholeCheck struct {
	// settled: nothing is left to do, or somebody is at it.
	settled atomic.Bool
	// wrong, if not nil, is why nothing is read: the chunks are not the blob.
	wrong atomic.Pointer[error]

	mu sync.Mutex
	// Of file, all chunks before next were there.
	file *blobFile
	next int64
}

// recall takes over what the mark says of these chunks.
func (s *blobState) recall() {
	m := s.c.meta.Mark(s.digest, s.key)
	if m.Table != s.table() {
		return // they may not be the blob's all the same
	}
	s.whole.settled.Store(m.Verification == meta.VerifiedWhole || m.Verification == meta.VerifiedWrong)
	switch {
	case m.Verification != meta.VerifiedWrong:
		s.whole.wrong.Store(nil)
	case s.refuted() == nil:
		err := s.indexError()
		s.whole.wrong.Store(&err)
	}
}

// table returns what marks call the cuts.
func (s *blobState) table() string { return hex.EncodeToString(s.sum[:]) }

// refuted returns an error if the chunks are known not to be the blob.
func (s *blobState) refuted() error {
	if err := s.whole.wrong.Load(); err != nil {
		return *err
	}
	return nil
}

// indexError is the error of a blob of which the chunks are right, and the whole is not.
func (s *blobState) indexError() error {
	return fmt.Errorf("blob %s: its chunks are as the index says, but the whole is not: the index is wrong: %w", s.digest, remote.ErrDigest)
}

// Refuted returns an error if all of the blob has been there by now, each chunk as it
// should be, and was not the blob, or Condemn has said so: then what was read of it
// before is not its content either. It wraps remote.ErrDigest, or is the one that Condemn
// was given.
func (b *Blob) Refuted() error { return b.s.refuted() }

// Complete reports whether all chunks of the blob seem to be on disk: it is a hint, and
// costs a small read of the disk. A blob that is local is there.
func (b *Blob) Complete() bool {
	if b.s.local {
		return true
	}
	file := b.s.openFileTo(false)
	return file != nil && b.s.reachedEnd(file)
}

// noteComplete begins to check the whole blob if all of it is there and that
// was not done before. It is called after anything was read or stored.
func (s *blobState) noteComplete(file *blobFile, cuts Cuts) {
	if s.Table != nil || s.whole.settled.Load() || !s.reachedEnd(file) || s.whole.settled.Swap(true) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.c.dir.Go(func() {
		if !s.checkWhole(s.ctx, file, cuts) {
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
func (s *blobState) checkWhole(ctx context.Context, file *blobFile, cuts Cuts) bool {
	if !file.complete() {
		return false
	}
	h := s.digest.Algorithm().Hash()
	if s.readChunks(ctx, file, h, nil) != nil {
		return false
	}
	if s.digestIs(h) {
		m := meta.Mark{Verification: meta.VerifiedWhole, When: time.Now(), Table: s.table()}
		s.c.meta.SetMark(s.digest, s.key, m, m.BetterThan)
		return true
	}
	// Either the index lied, or chunks have changed or gone on disk: these
	// very bytes must be right by the one and wrong by the other.
	h = s.digest.Algorithm().Hash()
	err := s.readChunks(ctx, file, h, func(k int64, data []byte) error {
		if !s.match(cuts, k, data) {
			s.dropFound(file, cuts, k, data)
			return errChanged
		}
		return nil
	})
	if err != nil || s.digestIs(h) {
		return false
	}
	s.condemn(s.indexError())
	s.c.dir.Warnf("blob %s: every chunk of it is as its index says, but the whole is not: the index is wrong, and what was read of the blob cannot be trusted", s.digest)
	return true
}

// dropFound is dropWrong for one who has no flight for chunk k: a reader who found it wrong
// as well may be at it, or have mended it by now. It uses data's memory.
func (s *blobState) dropFound(file *blobFile, cuts Cuts, k int64, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flights[k] != nil || !file.current() {
		return
	}
	at, _ := s.Bounds(k)
	if _, err := file.f.ReadAt(data, at); err != nil || !s.match(cuts, k, data) {
		s.dropWrong(file, k)
	}
}

func (s *blobState) digestIs(h hash.Hash) bool {
	return digest.NewDigest(s.digest.Algorithm(), h) == s.digest
}

// errChanged: the file has not what it had.
var errChanged = errors.New("the blob file has changed")

// readChunks reads all chunks of the file into h and one by one to check.
func (s *blobState) readChunks(ctx context.Context, file *blobFile, h hash.Hash, check func(k int64, data []byte) error) error {
	buf := make([]byte, s.Longest())
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

// Condemn makes sure that nobody gets anything of the blob again by these cuts, as they
// are not its own: each read of a Blob of this Cache that has them fails with err, which
// should wrap remote.ErrDigest; a mark tells other processes that begin to read it later,
// and what is on disk is removed. It is forgotten if SetVerifiedWhole says otherwise.
func (b *Blob) Condemn(err error) { b.s.condemn(err) }

// condemn is Condemn. Each chunk was right, and all of them together were not the blob.
func (s *blobState) condemn(err error) {
	c := s.c
	for _, other := range c.statesOf(s.digest) {
		if other.sum == s.sum {
			other.whole.wrong.Store(&err)
			other.whole.settled.Store(true)
		}
	}
	c.meta.SetMark(s.digest, s.key, meta.Mark{Verification: meta.VerifiedWrong, When: time.Now(), Table: s.table()}, func(meta.Mark) bool { return true })
	c.removeFile(s.fileName())
}

// Remove removes what the directory has of a blob in chunks of one size, whose digest
// must be valid. Who reads it goes on, and fetches it again.
func (c *Cache) Remove(d digest.Digest) { c.removeFile(c.dir.Name(directory.Blobs, d)) }

// RemoveCuts removes what the directory has of a blob by cuts of another kind, whose sum
// is sum, because it is of no more use: this Cache stores nothing more of it, unless a new
// Blob is made. Other processes that read it fetch it again.
func (c *Cache) RemoveCuts(d digest.Digest, sum [sha256.Size]byte) {
	if d.Validate() != nil {
		return
	}
	for _, s := range c.statesOf(d) {
		if s.sum == sum && s.Table != nil {
			s.noFile.Store(true)
		}
	}
	c.removeFile(c.dir.KeyName(directory.Blobs, d, directory.Key(sum)))
}

// removeFile removes a blob file.
func (c *Cache) removeFile(name string) {
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
