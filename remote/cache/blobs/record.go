package blobs

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

// A Recording takes the bytes of a blob as they pass by for the first time,
// when nobody knows yet what its chunks are. Nobody sees them before Commit.
// It is not safe for concurrent use.
type Recording struct {
	c      *Cache
	digest digest.Digest
	size   int64
	f      *directory.NewFile // nil once it is over, or there is no room, or the disk failed
	n      int64
	done   bool
	// from is what is recorded, and came how many bytes its source gave for it.
	from remote.Blob
	came int64
	// late, if it is not nil, decides when bytes come: see Record.
	late remote.WholeBlob
	// temporary is how much of it counts as temporary.
	temporary int64
}

// Record begins a recording of b. It must be ended by Commit or Abort; that of
// a process that was killed is removed by a later Open. Where the disk fails,
// or the budget has no room for the blob, the recording comes to nothing,
// without an error; see Recorded. It takes at most half of the budget, unless b
// turns out to be sent whole, and room from blobs last used before the
// recordings that it is one of: those of one image, which do not remove each
// other's.
func (c *Cache) Record(b remote.Blob) (*Recording, error) {
	d := b.Digest()
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("blob %q: %w", d, err)
	}
	r := &Recording{c: c, digest: d, size: b.Size(), from: b}
	switch limit := c.dir.Budget(); {
	case !c.dir.MayKeep():
	case limit == 0 || r.size <= limit/2:
		r.begin()
	case r.size <= limit:
		r.late, _ = b.(remote.WholeBlob)
	}
	return r, nil
}

// begin makes the file.
func (r *Recording) begin() {
	c := r.c
	c.dir.BeginRecording()
	stored, err := c.dir.Within(directory.FileRoom(0), c.dir.RecordingRule(), func() (err error) {
		r.f, err = c.dir.NewFile()
		return err
	})
	if err != nil {
		c.dir.DiskFailed(err)
	}
	if !stored {
		c.dir.EndRecording("")
		return
	}
	// Some file systems set room aside behind the end of a file that grows.
	// It does not matter if this fails.
	_ = r.f.Truncate(r.size)
}

// Write takes the next bytes of the blob. The only error is that there are
// more than the blob's size; it wraps remote.ErrDigest.
func (r *Recording) Write(p []byte) (int, error) {
	r.count(int64(len(p)))
	if int64(len(p)) > r.size-r.n {
		r.Abort()
		return 0, fmt.Errorf("blob %s: more than its %d bytes: %w", r.digest, r.size, remote.ErrDigest)
	}
	off := r.n
	r.n += int64(len(p))
	if off == 0 && r.late != nil && r.late.SentWhole() {
		r.begin()
	}
	if r.f == nil {
		return len(p), nil
	}
	stored := r.store(directory.Blocks(r.n)-directory.Blocks(off), func() error {
		_, err := r.f.WriteAt(p, off)
		return err
	})
	if stored {
		r.c.dir.CountTemporary(int64(len(p)))
		r.temporary += int64(len(p))
	}
	return len(p), nil
}

// count counts what the source gave, whether or not it is stored.
func (r *Recording) count(n int64) {
	n = remote.Received(r.from, n)
	r.came += n
	r.c.count.recorded.Add(n)
}

// Came returns how many bytes the source gave for the recording so far, also those
// that were of no use. It is complete once the recording is over.
func (r *Recording) Came() int64 { return r.came }

// store writes what takes n more bytes on disk. If that cannot be, the
// recording is over.
func (r *Recording) store(n int64, write func() error) bool {
	stored, err := r.c.dir.Within(n, r.c.dir.RecordingRule(), write)
	if err != nil {
		r.c.dir.DiskFailed(err)
	}
	if !stored {
		r.Abort()
	}
	return stored
}

// Commit makes what was written the blob's data, with all chunks there. The
// caller has checked that it has the blob's digest. The error says that the
// count of bytes, or of chunks, is not right; then, too, the recording is
// over. Where the disk failed, or there was no room, Commit does nothing.
func (r *Recording) Commit(chunks Chunks) error {
	defer r.Abort()
	if r.n != r.size {
		return fmt.Errorf("blob %s: recorded %d bytes of %d: %w", r.digest, r.n, r.size, io.ErrUnexpectedEOF)
	}
	l, err := chunks.layout(r.digest, r.size)
	if err != nil || r.f == nil {
		return err
	}
	end := l.EncodeEnd()
	r.done = r.store(directory.FileRoom(int64(len(end))), func() error { return r.publish(l, end) })
	return nil
}

// publish completes the file and gives it its name.
func (r *Recording) publish(l blobfile.Layout, end []byte) error {
	if _, err := r.f.WriteAt(end, l.Word(0)); err != nil {
		return err
	}
	name := r.c.dir.Name(directory.Blobs, r.digest)
	old, err := r.c.dir.Files().OpenFile(name, os.O_RDWR)
	if err == nil {
		defer old.Close()
	}
	if err := r.f.Publish(name); err != nil {
		return err
	}
	if old == nil {
		return nil
	}
	if err := directory.LockSoon(old); err == nil || directory.NoLocks(err) {
		blobfile.Retire(old)
	}
	return nil
}

// Abort ends the recording and removes what it wrote. After Commit it does
// nothing.
func (r *Recording) Abort() {
	r.count(0)
	if r.f == nil {
		return
	}
	var brought digest.Digest
	if r.done {
		brought = r.digest
	} else {
		r.f.Discard()
	}
	r.f.Close()
	r.f = nil
	r.c.dir.CountTemporary(-r.temporary)
	r.c.dir.EndRecording(brought)
}

// Recorded reports whether Commit has put the blob into the cache.
func (r *Recording) Recorded() bool { return r.done }

// Stored returns the blob d of size bytes as it lies on disk, if it is there
// from end to end: for a pass that checks the digest of the whole, as nothing
// else has checked these bytes. It must be closed.
func (c *Cache) Stored(d digest.Digest, size int64) (*StoredBlob, bool) {
	if d.Validate() != nil {
		return nil, false
	}
	f, err := c.dir.Files().Open(c.dir.Name(directory.Blobs, d))
	if err != nil {
		return nil, false
	}
	l, epoch, ok := blobfile.ReadFooter(f)
	if ok && l.Table == nil && l.Size == size && epoch != 0 {
		b := &blobFile{Layout: l, f: f, epoch: epoch}
		if b.complete() {
			return &StoredBlob{digest: d, file: b}, true
		}
	}
	f.Close()
	return nil, false
}

// complete reports whether all chunks are there.
func (b *blobFile) complete() bool {
	const batch = 4096
	for k := int64(0); k < b.Chunks(); k += batch {
		for _, w := range b.present(k, min(k+batch, b.Chunks())) {
			if w == 0 {
				return false
			}
		}
	}
	return true
}

// A StoredBlob is a blob's bytes on disk, not checked in any way.
type StoredBlob struct {
	digest digest.Digest
	file   *blobFile
}

var _ remote.Blob = (*StoredBlob)(nil)

// Digest returns the digest that the blob should have.
func (b *StoredBlob) Digest() digest.Digest { return b.digest }

// Size returns the length of the blob in bytes.
func (b *StoredBlob) Size() int64 { return b.file.Size }

// ReadAt reads len(p) bytes of the blob from off, like io.ReaderAt.
func (b *StoredBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("blob %s: read at negative offset %d: %w", b.digest, off, fs.ErrInvalid)
	}
	return io.NewSectionReader(b.file.f, 0, b.file.Size).ReadAt(p, off)
}

// Close closes the file.
func (b *StoredBlob) Close() error { return b.file.f.Close() }
