package files

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/remote/seal"
)

// Store keeps the content with SHA-256 d that r gives: size bytes. It
// appears whole and checked, or not at all, and is open as if Open had
// opened it. If it is there already, or another Store of this Cache
// brings it meanwhile, r is not read. r is read to its end, by this goroutine;
// reads of it should end when ctx does, which is looked at only between them.
//
// The error wraps ErrFull if disk or budget do not take it; remote.ErrDigest
// if r gave more bytes or others, io.ErrUnexpectedEOF if fewer; fs.ErrClosed
// if the Cache is closed; else it is ctx.Err(), or that of r or the disk.
func (c *Cache) Store(ctx context.Context, d digest.Digest, size int64, r io.Reader) (*Kept, error) {
	if err := c.enter(d); err != nil {
		return nil, err
	}
	defer c.dir.End()
	if size < 0 {
		return nil, fmt.Errorf("content %s: size %d: %w", d, size, fs.ErrInvalid)
	}
	unlock, err := c.known.lock(ctx, &c.known.storing, d)
	if err != nil {
		return nil, fileError(d, err)
	}
	defer unlock()
	if x, err := c.open(ctx, d, size); !errors.Is(err, fs.ErrNotExist) {
		return x, err
	}
	if !c.dir.MayWrite() || !c.reserve(size) {
		return nil, fileError(d, directory.ErrFull)
	}
	x, err := c.write(ctx, d, size, r)
	c.settle(size, err == nil)
	if err != nil {
		return nil, fileError(d, err)
	}
	c.count.stored.Add(1)
	c.count.bytes.Add(size)
	return x, nil
}

// write writes a kept file that there is room for among kept files.
func (c *Cache) write(ctx context.Context, d digest.Digest, size int64, r io.Reader) (x *Kept, err error) {
	var w *directory.NewFile
	err = c.put(directory.FileRoom(0), func() (err error) {
		w, err = c.dir.NewFile()
		return err
	})
	if err != nil {
		return nil, err
	}
	defer w.Close()
	defer func() {
		if err != nil {
			w.Discard()
		}
	}()
	sealed := seal.NewAppender(c.known.key, sealBlock)
	if err := c.fill(ctx, w, d, size, r, sealed); err != nil {
		return nil, err
	}
	f, err := reopen(w)
	if err != nil {
		return nil, err
	}
	x = &Kept{c: c, digest: d, f: f, size: size}
	if err = c.protect(ctx, x); err == nil {
		err = c.publish(w, x, sealed.Table())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return x, nil
}

// fill writes to w what r gives, which must have size and digest, and
// seals it.
func (c *Cache) fill(ctx context.Context, w *directory.NewFile, d digest.Digest, size int64, r io.Reader, sealed *seal.Appender) error {
	h := sha256.New()
	// One byte more than there should be tells that there are too many.
	buf := make([]byte, 1+min(pieceSize-1, size))
	off := int64(0)
	defer func() { c.dir.CountTemporary(-off) }()
	for {
		if err := c.dir.Interrupted(ctx); err != nil {
			return err
		}
		n, err := io.ReadFull(r, buf)
		end := off + int64(n)
		if end > size {
			return fmt.Errorf("more than its %d bytes: %w", size, remote.ErrDigest)
		}
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return err
		}
		if n > 0 {
			h.Write(buf[:n])
			sealed.Append(buf[:n])
			err := c.put(directory.Blocks(end)-directory.Blocks(off), func() error {
				_, err := w.WriteAt(buf[:n], off)
				return err
			})
			if err != nil {
				return err
			}
		}
		c.dir.CountTemporary(int64(n))
		if off = end; err == nil {
			continue
		}
		if off < size {
			return fmt.Errorf("%d of %d bytes: %w", off, size, io.ErrUnexpectedEOF)
		}
		if got := digest.NewDigest(digest.SHA256, h); got != d {
			return fmt.Errorf("its bytes have %s: %w", got, remote.ErrDigest)
		}
		return nil
	}
}

// reopen opens the file behind w anew, so that it can only be read, with
// the lock of a reader in place of the lock of w, and closes w: a file that
// somebody may write cannot be executed.
func reopen(w *directory.NewFile) (*os.File, error) {
	f, err := w.Reopen()
	if err != nil {
		return nil, err
	}
	if err = directory.Flock(w.File, unix.LOCK_SH); err == nil {
		err = directory.Flock(f, unix.LOCK_SH|unix.LOCK_NB)
	}
	if directory.NoLocks(err) {
		err = nil
	}
	// From one kind of lock to the other it belongs to nobody for a moment.
	if err == nil && !(w.IsThere() && w.Is(f)) {
		err = directory.ErrReplaced
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "reopen", Path: w.Name(), Err: err}
	}
	return f, nil
}

// publish gives a kept file that is complete its name.
func (c *Cache) publish(w *directory.NewFile, x *Kept, sealed *seal.Table) error {
	name := c.dir.Name(directory.Kept, x.digest)
	room := int64(0)
	if !c.dir.Files().Exists(path.Dir(name)) {
		room = 2 * blobfile.BlockSize // the first one makes two directories
	}
	if err := c.put(room, func() error { return w.Publish(name) }); err != nil {
		return err
	}
	now, _, err := identify(x.f)
	if err != nil {
		now = seen{}
	}
	x.known = c.known.know(x.digest, now, sealed)
	return nil
}

// put writes what takes at most n bytes on disk for a kept file. The
// error wraps ErrFull if it cannot be for want of room.
func (c *Cache) put(n int64, write func() error) error {
	stored, err := c.dir.Within(n, c.dir.CopyRule(), write)
	switch {
	case err != nil:
		c.dir.DiskFailed(err)
		if directory.IsFull(err) {
			err = fmt.Errorf("%w: %w", directory.ErrFull, err)
		}
		return err
	case !stored:
		c.known.share.full.Refuse()
		return directory.ErrFull
	}
	return nil
}
