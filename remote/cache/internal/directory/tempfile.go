package directory

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
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
	c    *Dir
	f    *os.File
	size int64 // 0: not known
	rule func() Rule
	// elsewhere says that the file is not in the cache's directory, so that no
	// other process counts it.
	elsewhere bool

	mu     sync.Mutex // held while room is made, which other writers wait for
	End    int64      // of what was written
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
func (c *Dir) NewTempFile(opts *TempOptions) (*TempFile, error) {
	if opts == nil {
		opts = &TempOptions{}
	}
	if c.IsClosed() {
		return nil, fmt.Errorf("cache directory %s: %w", c.path, fs.ErrClosed)
	}
	if limit := c.Room.limit; limit > 0 && opts.Size > limit-c.Room.Temporary() {
		return nil, &fullError{fmt.Sprintf("the cache has no room for a temporary file of %d bytes", opts.Size)}
	}
	f, elsewhere, err := c.createTemp(opts.Size)
	if err != nil {
		return nil, err
	}
	t := &TempFile{c: c, f: f, size: opts.Size, elsewhere: elsewhere}
	began := Rule{before: blobfile.Stamp(), Copies: true}
	t.rule = func() Rule { return began }
	if opts.Copy {
		t.rule = c.CopyRule
	}
	return t, nil
}

// Adopt returns a file as a temporary one that another process has made by NewTempFile,
// and that has its whole length, so that it counts in the budget though that process has
// ended. It takes over f, also on an error. The error wraps fs.ErrExist if the file has a
// name: others count it, if anybody does. It wraps ErrFull, and the file does not count,
// if there is no room but that of what was used within the last hour.
func (c *Dir) Adopt(f *os.File) (*TempFile, error) {
	var at, dir unix.Stat_t
	err := errors.Join(unix.Fstat(int(f.Fd()), &at), unix.Stat(c.path, &dir))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if at.Nlink > 0 {
		return nil, errors.Join(fmt.Errorf("%s: as a temporary file: %w", f.Name(), fs.ErrExist), f.Close())
	}
	t := &TempFile{c: c, f: f, size: at.Size, elsewhere: c.readOnly != nil || at.Dev != dir.Dev, rule: c.CopyRule}
	if err := t.reserve(at.Size); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// createTemp creates a file without a name where there is room for size bytes,
// and reports whether that is not in the directory.
func (c *Dir) createTemp(size int64) (f *os.File, elsewhere bool, err error) {
	err = c.readOnly
	if err == nil {
		f, err = c.createInside(size)
	}
	if c.readOnly != nil || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		elsewhere = true
		f, err = nameless.Create(nameless.Dir(), size)
	}
	if IsFull(err) {
		err = fmt.Errorf("%w for a temporary file of %d bytes: %w", ErrFull, size, err)
	}
	return f, elsewhere, err
}

// createInside creates a file without a name in the directory, if its disk looks
// as if it would take size bytes.
func (c *Dir) createInside(size int64) (*os.File, error) {
	if free, err := c.files.Free(); err == nil && size > free {
		return nil, &fs.PathError{Op: "write to", Path: c.path, Err: unix.ENOSPC}
	}
	return c.files.Nameless(Tmp, spoolName)
}

// WriteAt implements io.WriterAt. The error wraps ErrFull if budget or disk do
// not take the bytes.
func (t *TempFile) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > MaxTotal {
		return 0, fmt.Errorf("temporary file: write at offset %d: %w", off, fs.ErrInvalid)
	}
	if err := t.reserve(off + int64(len(p))); err != nil {
		return 0, err
	}
	n, err := t.f.WriteAt(p, off)
	if IsFull(err) && t.c.Room.limit > 0 && !t.elsewhere && t.c.Room.freeSome(t.rule()) {
		var m int
		m, err = t.f.WriteAt(p[n:], off+int64(n))
		n += m
	}
	if IsFull(err) {
		err = fmt.Errorf("%w: %w", ErrFull, err)
	}
	return n, err
}

// TempStep is how much room a file takes at a time: each time the ledger
// is read and written.
const TempStep = 4 << 20

// reserve sees to it that there is room for what is before end.
func (t *TempFile) reserve(end int64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return fmt.Errorf("temporary file: %w", fs.ErrClosed)
	}
	if need := FileRoom(end) - t.room; need > 0 {
		if t.c.IsClosed() {
			return fmt.Errorf("cache directory %s: %w", t.c.path, fs.ErrClosed)
		}
		more := max(need, min(TempStep, Blocks(t.c.Room.limit/64)))
		if t.size > 0 {
			more = max(need, min(more, FileRoom(t.size)-t.room))
		}
		if !t.take(more) {
			if more == need || !t.take(need) {
				return &fullError{fmt.Sprintf("the cache has no room for more than %d bytes of a temporary file", t.End)}
			}
			more = need
		}
		t.room += more
	}
	if end > t.End {
		t.c.temporaryBytes.Add(end - t.End)
		t.End = end
	}
	return nil
}

func (t *TempFile) take(n int64) bool {
	if t.elsewhere {
		return t.c.Room.holdAlone(n)
	}
	return t.c.Room.hold(n, t.rule())
}

// Reserve takes room for the bytes before end, for a caller that writes to File.
func (t *TempFile) Reserve(end int64) error { return t.reserve(end) }

// File returns the file, which is closed by Close alone. What is written to it must have
// been reserved.
func (t *TempFile) File() *os.File { return t.f }

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
		room = FileRoom(size)
	}
	if back := t.room - room; back > 0 {
		t.room = room
		t.c.Room.giveBack(back, t.elsewhere)
	}
	if size < t.End {
		t.c.temporaryBytes.Add(size - t.End)
		t.End = size
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
func (b *Budget) hold(n int64, r Rule) bool {
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

func (b *Budget) addTemps(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.temps += n
}

// holdAlone is hold for a file that is elsewhere: others have no part in it.
func (b *Budget) holdAlone(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.limit > 0 && n > b.limit-b.alone {
		return false
	}
	b.alone += n
	return true
}

// Temporary returns what files without names take of the lease.
func (b *Budget) Temporary() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.temps
}

// giveBackWait is how long the lock of the ledger is waited for to give room back. If
// it cannot be had the next walk finds the room.
const giveBackWait = 50 * time.Millisecond

// giveBack gives back n bytes of hold, or of holdAlone.
func (b *Budget) giveBack(n int64, alone bool) {
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
	wait := b.Ledger.Wait
	b.Ledger.Wait = giveBackWait
	defer func() { b.Ledger.Wait = wait }()
	if b.Ledger.lease < 0 || b.Ledger.lock() != nil {
		return
	}
	defer b.Ledger.unlock()
	if b.Ledger.lease < 0 {
		return // the directory was cleared by hand
	}
	if rec, err := b.Ledger.Read(b.Boot); err == nil && rec.Known {
		// If it fails the next walk finds it.
		_ = b.Ledger.write(b.Boot, rec.Used-n, rec.walked-n, b.Outstanding())
	}
}
