package cache

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
	"github.com/imgfs/imgfs/remote/seal"
)

// StoreContent keeps the content with SHA-256 d that r gives: size bytes. It
// appears whole and checked, or not at all, and is open as if OpenContent had
// opened it. If it is there already, or another StoreContent of this Cache
// brings it meanwhile, r is not read. r is read to its end, by this goroutine;
// reads of it should end when ctx does, which is looked at only between them.
//
// The error wraps ErrFull if disk or budget do not take it; remote.ErrDigest
// if r gave more bytes or others, io.ErrUnexpectedEOF if fewer; fs.ErrClosed
// if the Cache is closed; else it is ctx.Err(), or that of r or the disk.
func (c *fileCache) StoreContent(ctx context.Context, d digest.Digest, size int64, r io.Reader) (*Content, error) {
	if err := c.enterContent(d); err != nil {
		return nil, err
	}
	defer c.dir.End()
	if size < 0 {
		return nil, fmt.Errorf("content %s: size %d: %w", d, size, fs.ErrInvalid)
	}
	unlock, err := c.contents.lock(ctx, &c.contents.storing, d)
	if err != nil {
		return nil, contentError(d, err)
	}
	defer unlock()
	if x, err := c.openContent(ctx, d, size); !errors.Is(err, fs.ErrNotExist) {
		return x, err
	}
	if !c.dir.mayWrite() || !c.reserveContent(size) {
		return nil, contentError(d, ErrFull)
	}
	x, err := c.writeContent(ctx, d, size, r)
	c.settleContent(size, err == nil)
	if err != nil {
		return nil, contentError(d, err)
	}
	c.count.stored.Add(1)
	c.count.bytes.Add(size)
	return x, nil
}

// writeContent writes a content that there is room for among contents.
func (c *fileCache) writeContent(ctx context.Context, d digest.Digest, size int64, r io.Reader) (x *Content, err error) {
	var w *newFile
	err = c.putContent(fileRoom(0), func() (err error) {
		w, err = c.dir.newFile()
		return err
	})
	if err != nil {
		return nil, err
	}
	defer w.Close()
	defer func() {
		if err != nil {
			w.discard()
		}
	}()
	sealed := seal.NewAppender(c.contents.key, contentBlock)
	if err := c.copyContent(ctx, w, d, size, r, sealed); err != nil {
		return nil, err
	}
	f, err := reopenContent(w)
	if err != nil {
		return nil, err
	}
	x = &Content{c: c, digest: d, f: f, size: size}
	if err = c.protectContent(ctx, x); err == nil {
		err = c.publishContent(w, x, sealed.Table())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return x, nil
}

// copyContent writes to w what r gives, which must have size and digest, and
// seals it.
func (c *fileCache) copyContent(ctx context.Context, w *newFile, d digest.Digest, size int64, r io.Reader, sealed *seal.Appender) error {
	h := sha256.New()
	// One byte more than there should be tells that there are too many.
	buf := make([]byte, 1+min(contentPiece-1, size))
	off := int64(0)
	defer func() { c.dir.countTemporary(-off) }()
	for {
		if err := c.dir.interrupted(ctx); err != nil {
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
			err := c.putContent(blocks(end)-blocks(off), func() error {
				_, err := w.WriteAt(buf[:n], off)
				return err
			})
			if err != nil {
				return err
			}
		}
		c.dir.countTemporary(int64(n))
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

// reopenContent opens the file behind w anew, so that it can only be read, with
// the lock of a reader in place of the lock of w, and closes w: a file that
// somebody may write cannot be executed.
func reopenContent(w *newFile) (*os.File, error) {
	f, err := w.reopen()
	if err != nil {
		return nil, err
	}
	if err = flock(w.File, unix.LOCK_SH); err == nil {
		err = flock(f, unix.LOCK_SH|unix.LOCK_NB)
	}
	if noLocks(err) {
		err = nil
	}
	// From one kind of lock to the other it belongs to nobody for a moment.
	if err == nil && !(w.isThere() && w.is(f)) {
		err = errReplaced
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

// publishContent gives a content that is complete its name.
func (c *fileCache) publishContent(w *newFile, x *Content, sealed *seal.Table) error {
	name := c.dir.name(keptDir, x.digest)
	room := int64(0)
	if !c.dir.Files().Exists(path.Dir(name)) {
		room = 2 * blockSize // the first one makes two directories
	}
	if err := c.putContent(room, func() error { return w.publish(name) }); err != nil {
		return err
	}
	now, _, err := identify(x.f)
	if err != nil {
		now = seen{}
	}
	x.known = c.contents.know(x.digest, now, sealed)
	return nil
}

// putContent writes what takes at most n bytes on disk for a content. The
// error wraps ErrFull if it cannot be for want of room.
func (c *fileCache) putContent(n int64, write func() error) error {
	stored, err := c.dir.within(n, c.dir.copyRule(), write)
	switch {
	case err != nil:
		c.dir.diskFailed(err)
		if isFull(err) {
			err = fmt.Errorf("%w: %w", ErrFull, err)
		}
		return err
	case !stored:
		c.contents.use.refuse()
		return ErrFull
	}
	return nil
}
