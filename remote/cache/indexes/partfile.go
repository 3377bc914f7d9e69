package indexes

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/beneath"
)

// A partFile is a file of which only parts may be there: what was not written yet, or is
// beyond its end, reads as anything. Who reads it checks all that it gives. What lies at an
// offset is the same for all that write the file, so they need not know of each other. It
// is safe for concurrent use. Of a nil *partFile nothing is there.
//
// docs/cache-format.md, "Layer indexes".
type partFile struct {
	dir      *beneath.Dir
	name     string
	makeRoom func(n int64) bool
	failed   func(error)

	mu   sync.RWMutex // held for writing while file changes
	file *os.File     // nil: there is none, or it cannot be opened
	// full says until when nothing is written, as there was no room.
	full time.Time
	// lost says that something was not written, pinned that the file is held: what is
	// written goes into no other.
	lost, pinned bool
}

// restOnDisk is how long a disk, or a cache, that had no room is left alone.
const restOnDisk = 30 * time.Second

// openPart opens the file with this name, if there is one.
func openPart(dir *beneath.Dir, name string, makeRoom func(int64) bool, failed func(error)) *partFile {
	f := &partFile{dir: dir, name: name, makeRoom: makeRoom, failed: failed}
	var err error
	if f.file, err = dir.OpenFile(name, os.O_RDWR); err != nil {
		f.file, _ = dir.Open(name) // a cache that may only be read
	}
	if f.file != nil {
		if st, err := f.file.Stat(); err == nil && time.Since(st.ModTime()) > touchAfter {
			_ = dir.Touch(name, time.Now()) // its last use
		}
	}
	return f
}

// readAt reads p from byte off of the file, and reports whether as much is there.
func (f *partFile) readAt(p []byte, off int64) bool {
	if f == nil {
		return false
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.file == nil {
		return false
	}
	n, _ := f.file.ReadAt(p, off)
	return n == len(p)
}

// readSome reads the beginning of the file, and returns how many bytes of p that gave.
func (f *partFile) readSome(p []byte) int {
	if f == nil {
		return 0
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.file == nil {
		return 0
	}
	n, _ := f.file.ReadAt(p, 0)
	return n
}

// writeAt writes p at byte off of the file, which is made if need be, and reports whether
// it did.
func (f *partFile) writeAt(p []byte, off int64) bool {
	if f == nil || f.makeRoom == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Now().Before(f.full) {
		f.lost = true
		return false
	}
	ok := f.makeRoom(int64(len(p)))
	if ok {
		err := f.present()
		if err == nil {
			_, err = f.file.WriteAt(p, off)
		}
		if ok = err == nil; !ok {
			f.failed(err)
		}
	}
	if !ok {
		f.full = time.Now().Add(restOnDisk)
		f.lost = true
	}
	return ok
}

// present opens the file again, or makes it, if it is not there any more: somebody has
// removed it to make room. The caller has mu.
func (f *partFile) present() error {
	if f.pinned {
		return nil
	}
	if f.file != nil {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.file.Fd()), &st); err == nil && st.Nlink > 0 {
			return nil
		}
		f.file.Close()
		f.file = nil
		f.lost = true
	}
	file, err := f.dir.OpenFile(f.name, os.O_RDWR|os.O_CREATE)
	if err == nil {
		f.file = file
	}
	return err
}

// close closes the file.
func (f *partFile) close() {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file != nil {
		f.file.Close()
		f.file = nil
	}
	f.makeRoom = nil
}
