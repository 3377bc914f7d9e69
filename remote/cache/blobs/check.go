package blobs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

// A Check is the result of Verify.
type Check struct {
	Checked, Bad int64 // chunks
	BadBytes     int64
	// Refuted: the chunks are not those of the blob. Whatever they come from is wrong.
	Refuted bool
}

// Verify reads every chunk of a blob that is on disk and checks it; chunks
// that are wrong are removed. If they are of one size, and all are there and right, it
// checks the digest of the whole too: if that is wrong the index lied, all of them count
// as bad, and the blob is removed. A file that is no blob file, or that of another blob,
// counts as one bad chunk. progress, if not nil, is called with how many bytes of
// chunks it has looked at, or is about to.
//
// Others may use the directory meanwhile; what they remove is not counted. The
// error is ctx.Err(), that the cuts do not fit the blob, or that the disk fails.
func (c *Cache) Verify(ctx context.Context, d digest.Digest, size int64, cuts Cuts, progress func(done int64)) (check Check, err error) {
	if err := d.Validate(); err != nil {
		return check, fmt.Errorf("blob %q: %w", d, err)
	}
	x, err := cut(d, size, cuts)
	if err != nil {
		return check, err
	}
	l, name := x.Layout, c.dir.KeyName(directory.Blobs, d, Key(cuts))
	f, err := c.dir.Files().OpenFile(name, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		return check, nil
	}
	if err != nil {
		return check, err
	}
	defer f.Close()
	have, epoch, ok, err := lookAt(f)
	switch {
	case err != nil:
		return check, err
	case !ok, epoch != 0 && !have.Equal(l):
		// Nobody reads it: who opens it for reading makes another.
		c.dir.CountBad()
		c.removeFile(name)
		return Check{Bad: 1}, nil
	case epoch == 0:
		return check, nil
	}
	b := &blobFile{Layout: l, f: f, epoch: epoch}
	if check, err = c.verifyChunks(ctx, b, &x, cuts, progress); err != nil || l.Table != nil || check.Bad > 0 || check.Checked < l.Chunks() {
		return check, err
	}
	s, err := c.state(d, size, cuts, false)
	if err != nil {
		return check, err
	}
	if s.checkWhole(ctx, b, cuts); s.refuted() != nil {
		check.Bad, check.BadBytes, check.Refuted = check.Checked, size, true
	}
	return check, ctx.Err()
}

// lookAt returns what an open file says of itself. An empty one is that of a
// blob that has nothing.
func lookAt(f *os.File) (l blobfile.Layout, epoch uint64, ok bool, err error) {
	if err := directory.LockSoon(f); err != nil && !directory.NoLocks(err) {
		return l, 0, false, err
	}
	defer directory.Flock(f, unix.LOCK_UN)
	st, err := f.Stat()
	if err != nil || st.Size() == 0 {
		return l, 0, true, err
	}
	l, epoch, ok = blobfile.ReadFooter(f)
	return l, epoch, ok, nil
}

// verifyChunks checks each chunk of a blob file.
func (c *Cache) verifyChunks(ctx context.Context, b *blobFile, x *cutting, cuts Cuts, progress func(done int64)) (check Check, err error) {
	done := int64(0)
	buf := make([]byte, b.Longest())
	right := func(k int64) (bool, error) {
		at, stop := b.Bounds(k)
		data := buf[:stop-at]
		if _, err := b.f.ReadAt(data, at); err != nil {
			return false, err
		}
		return x.match(cuts, k, data), nil
	}
	for k := range b.Layout.Chunks() {
		if err := ctx.Err(); err != nil {
			return check, err
		}
		if b.present(k, k+1)[0] == 0 {
			continue
		}
		if at, stop := b.Bounds(k); progress != nil {
			done += stop - at
			progress(done)
		}
		// A disk that cannot read a chunk has not got it.
		if ok, err := right(k); err == nil && ok {
			check.Checked++
			continue
		}
		removed, err := b.removeUnless(k, right)
		if err != nil {
			return check, err
		}
		if removed {
			c.dir.CountBad()
			at, stop := b.Bounds(k)
			check.Checked++
			check.Bad++
			check.BadBytes += stop - at
		}
	}
	return check, nil
}

// removeUnless takes chunk k away from a file, as docs/cache-format.md has it,
// unless it is right, or gone, now that nobody else takes anything away. It
// returns false of a chunk that was never really there, too.
func (b *blobFile) removeUnless(k int64, right func(k int64) (bool, error)) (removed bool, err error) {
	locked := directory.LockSoon(b.f)
	if locked != nil && !directory.NoLocks(locked) {
		return false, locked
	}
	defer directory.Flock(b.f, unix.LOCK_UN)
	_, epoch, ok := blobfile.ReadFooter(b.f)
	if !ok || epoch == 0 || b.present(k, k+1)[0] == 0 {
		return false, nil
	}
	if ok, err := right(k); err == nil && ok {
		return false, nil
	}
	hollow := b.hollow(k)
	if locked != nil {
		// The bytes stay: who opens the file now would not notice that they go.
		return !hollow, b.setWord(k, 0)
	}
	if err := blobfile.WriteEpoch(b.f, b.Layout, epoch+1); err != nil {
		return false, err
	}
	if err := b.setWord(k, 0); err != nil {
		return false, err
	}
	words := b.present(0, b.Layout.Chunks())
	// Where there are no holes the bytes stay, and nobody believes them.
	_ = b.PunchAbsent(b.f, k, func(k int64) bool { return words[k] != 0 })
	return !hollow, nil
}
