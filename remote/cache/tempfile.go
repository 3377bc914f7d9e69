package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/internal/nameless"
)

// TempOptions are the settings of NewTempFile. Nil and zero values mean the
// defaults.
type TempOptions struct {
	// Size is how many bytes the file is going to have. A file that budget or
	// disk cannot take at that size is refused at once. Default: not known.
	Size int64
	// Copy says that what is in the file only saves work: it takes room from
	// nothing that was used within the last hour.
	Copy bool
}

// A TempFile is a file without a name whose bytes count in the budget while it
// is open, though no walk of the directory sees them. It is gone with the
// process. It is safe for concurrent use.
type TempFile struct {
	c    *directory
	f    *os.File
	size int64 // 0: not known
	rule func() rule
	// elsewhere says that the file is not in the cache's directory, so that no
	// other process counts it.
	elsewhere bool

	mu     sync.Mutex // held while room is made, which other writers wait for
	end    int64      // of what was written
	room   int64      // taken off the budget
	closed bool
}

var _ remote.TempFile = (*TempFile)(nil)

// A fullError is an ErrFull that the budget, and not the disk, is the reason of.
type fullError struct{ text string }

func (e *fullError) Error() string        { return e.text }
func (e *fullError) Is(target error) bool { return target == ErrFull }

// NewTempFile makes a temporary file in the directory. It takes room as it
// grows, and removes for it what was last used before it was made. Where the
// directory cannot be written the file is in $TMPDIR, by default /var/tmp, and
// counts for this Cache alone. The error wraps ErrFull if budget or disk cannot
// take the file, fs.ErrClosed after Close; else it is the disk's.
func (c *directory) NewTempFile(opts *TempOptions) (*TempFile, error) {
	if opts == nil {
		opts = &TempOptions{}
	}
	if c.isClosed() {
		return nil, fmt.Errorf("cache directory %s: %w", c.path, fs.ErrClosed)
	}
	if limit := c.budget.limit; limit > 0 && opts.Size > limit-c.budget.temporary() {
		return nil, &fullError{fmt.Sprintf("the cache has no room for a temporary file of %d bytes", opts.Size)}
	}
	f, elsewhere, err := c.createTemp(opts.Size)
	if err != nil {
		return nil, err
	}
	t := &TempFile{c: c, f: f, size: opts.Size, elsewhere: elsewhere}
	began := rule{before: stamp(), copies: true}
	t.rule = func() rule { return began }
	if opts.Copy {
		t.rule = c.copyRule
	}
	return t, nil
}

// createTemp creates a file without a name where there is room for size bytes,
// and reports whether that is not in the directory.
func (c *directory) createTemp(size int64) (f *os.File, elsewhere bool, err error) {
	err = c.readOnly
	if err == nil {
		f, err = c.createInside(size)
	}
	if c.readOnly != nil || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		elsewhere = true
		f, err = nameless.Create(nameless.Dir(), size)
	}
	if isFull(err) {
		err = fmt.Errorf("%w for a temporary file of %d bytes: %w", ErrFull, size, err)
	}
	return f, elsewhere, err
}

// createInside creates a file without a name in the directory, if its disk looks
// as if it would take size bytes.
func (c *directory) createInside(size int64) (*os.File, error) {
	if free, err := c.files.Free(); err == nil && size > free {
		return nil, &fs.PathError{Op: "write to", Path: c.path, Err: unix.ENOSPC}
	}
	return c.files.Nameless(tmpDir, spoolName)
}

// WriteAt implements io.WriterAt. The error wraps ErrFull if budget or disk do
// not take the bytes.
func (t *TempFile) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > maxTotal {
		return 0, fmt.Errorf("temporary file: write at offset %d: %w", off, fs.ErrInvalid)
	}
	if err := t.reserve(off + int64(len(p))); err != nil {
		return 0, err
	}
	n, err := t.f.WriteAt(p, off)
	if isFull(err) && t.c.budget.limit > 0 && !t.elsewhere && t.c.budget.freeSome(t.rule()) {
		var m int
		m, err = t.f.WriteAt(p[n:], off+int64(n))
		n += m
	}
	if isFull(err) {
		err = fmt.Errorf("%w: %w", ErrFull, err)
	}
	return n, err
}

// tempStep is how much room a file takes at a time: each time the ledger
// is read and written.
const tempStep = 4 << 20

// reserve sees to it that there is room for what is before end.
func (t *TempFile) reserve(end int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return fmt.Errorf("temporary file: %w", fs.ErrClosed)
	}
	if need := fileRoom(end) - t.room; need > 0 {
		if t.c.isClosed() {
			return fmt.Errorf("cache directory %s: %w", t.c.path, fs.ErrClosed)
		}
		more := max(need, min(tempStep, blocks(t.c.budget.limit/64)))
		if t.size > 0 {
			more = max(need, min(more, fileRoom(t.size)-t.room))
		}
		if !t.take(more) {
			if more == need || !t.take(need) {
				return &fullError{fmt.Sprintf("the cache has no room for more than %d bytes of a temporary file", t.end)}
			}
			more = need
		}
		t.room += more
	}
	if end > t.end {
		t.c.temporaryBytes.Add(end - t.end)
		t.end = end
	}
	return nil
}

func (t *TempFile) take(n int64) bool {
	if t.elsewhere {
		return t.c.budget.holdAlone(n)
	}
	return t.c.budget.hold(n, t.rule())
}

// ReadAt implements io.ReaderAt.
func (t *TempFile) ReadAt(p []byte, off int64) (int, error) { return t.f.ReadAt(p, off) }

// Truncate cuts the file to size bytes, and gives back the room that the others
// took.
func (t *TempFile) Truncate(size int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.f.Truncate(size); err != nil {
		return err
	}
	t.shrink(size)
	return nil
}

// shrink gives back the room behind the first size bytes. The caller holds mu.
func (t *TempFile) shrink(size int64) {
	room := int64(0)
	if size > 0 {
		room = fileRoom(size)
	}
	if back := t.room - room; back > 0 {
		t.room = room
		t.c.budget.giveBack(back, t.elsewhere)
	}
	if size < t.end {
		t.c.temporaryBytes.Add(size - t.end)
		t.end = size
	}
}

// Close closes the file and gives back the room that it took. Closing again
// does nothing.
func (t *TempFile) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	err := t.f.Close()
	t.shrink(0)
	return err
}

// hold takes n bytes for a file without a name: they stay with the lease until
// giveBack.
func (b *budget) hold(n int64, r rule) bool {
	if b.limit == 0 {
		return true
	}
	b.addTemps(n) // before the lease is written
	if !b.take(n, r) {
		b.addTemps(-n)
		return false
	}
	return true
}

func (b *budget) addTemps(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.temps += n
}

// holdAlone is hold for a file that is elsewhere: others have no part in it.
func (b *budget) holdAlone(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.limit > 0 && n > b.limit-b.alone {
		return false
	}
	b.alone += n
	return true
}

// temporary returns what files without names take of the lease.
func (b *budget) temporary() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.temps
}

// giveBackWait is how long the lock of the ledger is waited for to give room back. If
// it cannot be had the next walk finds the room.
const giveBackWait = 50 * time.Millisecond

// giveBack gives back n bytes of hold, or of holdAlone.
func (b *budget) giveBack(n int64, alone bool) {
	if alone || b.limit == 0 {
		b.mu.Lock()
		defer b.mu.Unlock()
		if alone {
			b.alone -= n
		}
		return
	}
	b.mu.Lock()
	b.held -= n
	b.temps -= n
	b.mu.Unlock()
	if !b.refill.TryLock() {
		return
	}
	defer b.refill.Unlock()
	wait := b.ledger.wait
	b.ledger.wait = giveBackWait
	defer func() { b.ledger.wait = wait }()
	if b.ledger.lease < 0 || b.ledger.lock() != nil {
		return
	}
	defer b.ledger.unlock()
	if b.ledger.lease < 0 {
		return // the directory was cleared by hand
	}
	if rec, err := b.ledger.read(b.boot); err == nil && rec.known {
		// If it fails the next walk finds it.
		_ = b.ledger.write(b.boot, rec.used-n, rec.walked-n, b.outstanding())
	}
}
