//go:build linux

package fusefs

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
)

const (
	// minPassthrough is the size from which on a file may be passed through.
	// Opened, read and closed where only the disk's pages have the content, a
	// file of 64 KiB took 79 us in place of 110 by the daemon, one of 256 KiB
	// 109 in place of 213; where the mount's pages have it, 60 in place of 50
	// and 76 in place of 73.
	minPassthrough = 256 << 10

	// openExec is FMODE_EXEC, which is among the flags of an open for
	// execve(2), and of no other.
	openExec = 0x20

	// countedOpen is the handle of an open that is counted, so that the
	// others need no lock when they are released.
	countedOpen = 1
)

// noBackings are the Backings of a mount that was given none.
type noBackings struct{}

func (noBackings) Backing(fs.Node, bool) (BackingFile, bool) { return nil, false }

func (noBackings) BackingProbe() (BackingFile, error) {
	return nil, errors.New("no contents of files are kept on disk")
}

// A passthrough decides of each open of a file whether the kernel reads it by
// itself. The kernel (fs/fuse/iomode.c) wants all opens of an inode to be alike
// as long as there are any: all of them passed through to one registered file,
// or none; else the open fails. So the first open decides for those that come
// while it, or another after it, is not released. The kernel forgets an open
// before it sends RELEASE, so what is counted here is never too little.
//
// Nothing is kept for the next open of a file that nobody has open: to get the
// file and to register it took 10 us of the 60 that an open and a close cost.
type passthrough struct {
	from     conn
	backings Backings
	logf     func(format string, args ...any)

	mu     sync.Mutex
	opens  map[uint64]*openFile // by inode; nil when there are to be no more
	failed bool                 // the first failure has been logged
}

// An openFile is an inode that is open.
type openFile struct {
	count  int // of its opens; guarded by passthrough.mu
	decide sync.Once
	file   BackingFile // nil: it is not passed through
	id     int32
}

func newPassthrough(from conn, b Backings, logf func(format string, args ...any)) *passthrough {
	return &passthrough{from: from, backings: b, logf: logf, opens: map[uint64]*openFile{}}
}

// open answers OPEN of a regular file.
func (p *passthrough) open(n fs.Node, flags uint32, out *fuse.OpenOut) {
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	f := p.count(n.Ino())
	if f == nil {
		return
	}
	out.Fh = countedOpen
	// Reads past the pages would have to be aligned as the backing file's
	// disk likes it. The daemon answers any.
	direct := flags&unix.O_DIRECT != 0
	f.decide.Do(func() {
		if !direct {
			p.register(f, n, flags&openExec != 0)
		}
	})
	if f.file == nil {
		return
	}
	out.OpenFlags, out.BackingID = fuse.FOPEN_PASSTHROUGH, f.id
	if direct {
		out.OpenFlags |= fuse.FOPEN_DIRECT_IO
	}
}

// count notes an open. Until it is released, its caller may look at what was
// decided, and nobody ends that.
func (p *passthrough) count(ino uint64) *openFile {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.opens == nil {
		return nil
	}
	f := p.opens[ino]
	if f == nil {
		f = &openFile{}
		p.opens[ino] = f
	}
	f.count++
	return f
}

// register gives the kernel the file that has an inode's content, if there is
// one. Where that fails the daemon reads it.
func (p *passthrough) register(f *openFile, n fs.Node, exec bool) {
	file, ok := p.backings.Backing(n, exec)
	if !ok {
		return
	}
	id, err := p.from.register(file.Fd())
	if err != nil {
		file.Close()
		p.mu.Lock()
		first := !p.failed
		p.failed = true
		p.mu.Unlock()
		if first {
			p.logf("files are read by the daemon that the kernel could have read by itself: %v", registerError(err))
		}
		return
	}
	f.file, f.id = file, id
}

// release answers RELEASE of an open that was counted.
func (p *passthrough) release(ino uint64) {
	p.mu.Lock()
	f := p.opens[ino]
	if f == nil {
		p.mu.Unlock()
		return
	}
	if f.count--; f.count > 0 {
		f = nil
	} else {
		delete(p.opens, ino)
	}
	p.mu.Unlock()
	if f != nil {
		p.end(f)
	}
}

// end takes back what is registered for a file. A new registration of the
// same inode may be made meanwhile: it is another one for the kernel too.
func (p *passthrough) end(f *openFile) {
	f.decide.Do(func() {}) // so that what was decided is seen here
	if f.file == nil {
		return
	}
	// It can fail only when the connection is gone, and all with it.
	_ = p.from.unregister(f.id)
	f.file.Close()
}

// close ends all that is open, when the kernel asks no more: after an unmount
// or the loss of the connection it may not have released everything.
func (p *passthrough) close() {
	p.mu.Lock()
	open := slices.Collect(maps.Values(p.opens))
	p.opens = nil
	p.mu.Unlock()
	for _, f := range open {
		p.end(f)
	}
}
