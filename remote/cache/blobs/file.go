package blobs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/beneath"
	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/remote/seal"
)

const (
	// sealBlock is the length of the pieces of a chunk that are sealed, and
	// read back, each for itself: a divisor of most chunks.
	sealBlock = 16 << 10

	// noteAfter is how old, in seconds, a chunk's state word gets before its
	// use is noted again. What it costs is one small write a chunk in that
	// time; the order in which chunks are removed is as exact as it.
	noteAfter = 10
)

// A blobFile is an open blob file at one epoch: as long as the file has this
// epoch, nothing has gone that was in it. It is safe for concurrent use.
//
// It is not closed when it is replaced, since readers may be using it: the
// runtime closes it when the last one is through.
type blobFile struct {
	blobfile.Layout
	f     *os.File
	epoch uint64
	// unsure: chunks may be removed without the epoch saying so, as the lock
	// of the file was not taken.
	unsure bool
	// sound is not 0 for each chunk whose bytes this process has checked, or
	// written, in this epoch: it is the state word that it knows. What is read
	// of it must still be the bytes that are sealed.
	sound []atomic.Uint32
	// sealed is what is sealed of chunks of one size; others have seals of the blob.
	sealed *seal.Table
	seals  *seals
}

// track makes room for what becomes known of the chunks.
func (b *blobFile) track(known *seals) {
	b.sound = make([]atomic.Uint32, b.Chunks())
	if b.seals = known; known != nil {
		return
	}
	block := int64(sealBlock)
	if b.Chunk%block != 0 {
		block = blobfile.BlockSize
	}
	b.sealed = seal.NewTable(seal.NewKey(), b.Size, block)
}

// errNoFile: there is no blob file, and none is to be made.
var errNoFile = errors.New("no blob file")

// A blobMode says what a blob file is opened for.
type blobMode int

const (
	blobRead blobMode = iota // nothing is changed
	blobUse                  // as far as it is there
	blobMake                 // and is made, if it is not
)

func (m blobMode) flags() int {
	return [...]int{os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREATE}[m]
}

// openBlobFile opens the file of a blob. If there is none, or one that does
// not fit, it makes an empty one, or returns errNoFile if it is not to.
// known is what is known of its chunks, nil if they are of one size.
func openBlobFile(d *beneath.Dir, name string, l blobfile.Layout, known *seals, how blobMode) (*blobFile, error) {
	// Each turn but the last means that another process replaced the file
	// at that moment, or that one that did not fit was removed.
	for range 100 {
		f, err := d.OpenFile(name, how.flags())
		if how == blobMake && directory.IsRefused(err) && d.Remove(name) == nil {
			continue // it was of no use to anybody who may write here
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errNoFile
		}
		if err != nil {
			return nil, err
		}
		b := &blobFile{Layout: l, f: f}
		if b.epoch, err = b.prepare(d, name, how); b.epoch != 0 {
			b.track(known)
			return b, nil
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s is replaced all the time", d.Path(name))
}

// prepare makes sure, under the file's lock, that it is the blob file of this
// name and fits the layout, and returns its epoch. It returns 0 if the name must
// be opened again, or given up because of err.
func (b *blobFile) prepare(d *beneath.Dir, name string, how blobMode) (uint64, error) {
	if err := b.lock(how); err != nil {
		return 0, &fs.PathError{Op: "flock", Path: b.f.Name(), Err: err}
	}
	defer directory.Flock(b.f, unix.LOCK_UN)
	if !d.Is(b.f, name) {
		return 0, nil
	}
	have, epoch, ok := blobfile.ReadFooter(b.f)
	switch {
	case ok && have.Equal(b.Layout) && epoch != 0:
		return epoch, nil
	case how == blobRead:
		return 0, errNoFile
	}
	st, err := b.f.Stat()
	if err == nil && st.Size() == 0 && how == blobMake {
		return initFile(b.f, b.Layout)
	}
	blobfile.Retire(b.f)
	if err := d.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	return 0, nil
}

// lock takes the file's lock. Where there are none, and of a file that is not
// to be changed, it makes the file one of which each chunk is checked each time.
func (b *blobFile) lock(how blobMode) error {
	if how == blobRead {
		b.unsure = true // others' locks are not to be taken
		return nil
	}
	err := directory.LockSoon(b.f)
	if directory.NoLocks(err) {
		b.unsure, err = true, nil
	}
	return err
}

// initFile makes an empty file a blob file without chunks.
func initFile(f *os.File, l blobfile.Layout) (uint64, error) {
	epoch := blobfile.NewEpoch()
	if err := l.Write(f, epoch); err != nil {
		// An empty file is what the next one to open it can deal with.
		f.Truncate(0)
		return 0, err
	}
	return epoch, nil
}

// present returns the state words of the chunks from first to end; 0 for a
// chunk that is not there.
func (b *blobFile) present(first, end int64) []uint32 { return b.Words(b.f, first, end) }

func (b *blobFile) setWord(k int64, w uint32) error { return b.Layout.SetWord(b.f, k, w) }

// current reports whether the file still has the epoch it was opened at. If
// so, nobody has taken anything away from it.
func (b *blobFile) current() bool {
	var p [8]byte
	_, err := b.f.ReadAt(p[:], b.Footer()+blobfile.EpochOff)
	return err == nil && binary.LittleEndian.Uint64(p[:]) == b.epoch
}

// setSound says that chunk k is data, which has been checked and is being used.
func (b *blobFile) setSound(k int64, data []byte) {
	if b.unsure && b.seals == nil {
		if w, now := b.present(k, k+1)[0], blobfile.Stamp(); w != 0 && now-w >= noteAfter {
			_ = b.setWord(k, now)
		}
		return
	}
	b.seal(k, k+1, data)
	b.noteSound(k)
}

// noteSound says that chunk k is what has its seal, and is being used.
func (b *blobFile) noteSound(k int64) {
	if b.sound[k].CompareAndSwap(0, b.present(k, k+1)[0]) {
		b.touch(k, k+1)
	}
}

// seal seals the chunks from first to end, which are data.
func (b *blobFile) seal(first, end int64, data []byte) {
	base, _ := b.Bounds(first)
	if b.seals == nil {
		b.sealed.Seal(base, data)
		return
	}
	for k := first; k < end; k++ {
		at, stop := b.Bounds(k)
		b.seals.put(k, data[at-base:stop-base])
	}
}

func (b *blobFile) clearSound(k int64)   { b.sound[k].Store(0) }
func (b *blobFile) isSound(k int64) bool { return b.sound[k].Load() != 0 }

// touch notes that the sound chunks from first to end are being used, if the
// last note is old.
func (b *blobFile) touch(first, end int64) {
	now := blobfile.Stamp()
	for k := first; k < end; k++ {
		// Also a word of the future is set right.
		word := b.sound[k].Load()
		if word != 0 && now-word >= noteAfter && b.sound[k].CompareAndSwap(word, now) {
			_ = b.setWord(k, now) // it only says what to remove first
		}
	}
}

// hollow reports whether chunk k was removed while its state word was written, which is
// no damage: there is nothing at all where it should be. One that does not begin
// and end with blocks may have lost only some.
func (b *blobFile) hollow(k int64) bool {
	off, end := b.Bounds(k)
	if b.Table != nil {
		at, err := unix.Seek(int(b.f.Fd()), off, unix.SEEK_HOLE)
		return err == nil && at < end
	}
	at, err := unix.Seek(int(b.f.Fd()), off, unix.SEEK_DATA)
	return errors.Is(err, unix.ENXIO) || err == nil && at >= directory.Blocks(end)
}

// readSound reads p from off, if all chunks from first to end are sound, and
// what is read of them is what was checked. The range must lie in these chunks.
func (b *blobFile) readSound(p []byte, off, first, end int64) bool {
	for k := first; k < end; k++ {
		if !b.isSound(k) {
			return false
		}
	}
	// What is not as it was sealed may be right all the same: who wants it checks it
	// whole.
	if b.seals != nil {
		if wrong := b.seals.read(b.Layout, b.f, p, off, first, end); wrong >= 0 {
			b.clearSound(wrong)
			return false
		}
	} else if !b.sealed.Read(b.f, p, off) {
		for k := first; k < end; k++ {
			b.clearSound(k)
		}
		return false
	}
	// Bytes that were removed had not been what was checked. But who goes on
	// with a file that is not the blob's any more keeps it on the disk.
	if !b.current() {
		return false
	}
	b.touch(first, end)
	return true
}
