//go:build linux

package fusefs

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/fusefs/internal/journal"
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
	// others need no lock when they are released. Where opens are noted for the next server
	// each has a handle of its own.
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
	table    *journal.Table // where opens are noted for the next server, or nil

	mu     sync.Mutex
	opens  map[uint64]*openFile // by inode; nil when there are to be no more
	failed bool                 // the first failure has been logged
	// known are the opens that the last server has noted, by the unique numbers of their
	// requests.
	known map[uint64]int
}

// An openFile is an inode that is open.
type openFile struct {
	count  int // of its opens; guarded by passthrough.mu
	decide sync.Once
	file   BackingFile // nil: it is not passed through, or another server had it
	id     int32       // 0: it is not passed through
}

// newPassthrough returns one whose opens are noted in a table, unless that is nil.
func newPassthrough(from conn, b Backings, table *journal.Table, logf func(format string, args ...any)) *passthrough {
	return &passthrough{from: from, backings: b, table: table, logf: logf, opens: map[uint64]*openFile{}}
}

// open answers OPEN of a regular file.
func (p *passthrough) open(n fs.Node, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	f, slot, decided, ok := p.count(n.Ino(), in.Unique)
	switch {
	case !ok:
		return fuse.Status(unix.ENFILE)
	case f == nil:
		return fuse.OK
	}
	// Reads past the pages would have to be aligned as the backing file's
	// disk likes it. The daemon answers any.
	direct := in.Flags&unix.O_DIRECT != 0
	f.decide.Do(func() {
		if !direct {
			p.register(f, n, in.Flags&openExec != 0)
		}
	})
	out.Fh = countedOpen
	if p.table != nil {
		out.Fh = p.table.Handle(slot)
		if !decided {
			p.table.Decide(slot, f.id)
		}
	}
	if f.id == 0 {
		return fuse.OK
	}
	out.OpenFlags, out.BackingID = fuse.FOPEN_PASSTHROUGH, f.id
	if direct {
		out.OpenFlags |= fuse.FOPEN_DIRECT_IO
	}
	return fuse.OK
}

// count notes an open, unless the last server has. Until it is released, its caller may
// look at what was decided, and nobody ends that. The file is nil when there are to be no
// more, and decided says that the last server has answered the open, perhaps. It returns
// false if there are too many.
func (p *passthrough) count(ino, unique uint64) (f *openFile, slot int, decided, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.opens == nil {
		return nil, 0, false, true
	}
	if slot, known := p.known[unique]; known && p.table.Inode(slot) == ino && p.opens[ino] != nil {
		return p.opens[ino], slot, p.table.Decided(slot), true
	}
	if p.table != nil {
		if slot, ok = p.table.Add(ino, unique); !ok {
			return nil, 0, false, false
		}
	}
	f = p.opens[ino]
	if f == nil {
		f = &openFile{}
		p.opens[ino] = f
	}
	f.count++
	return f, slot, false, true
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
	if p.table != nil {
		p.table.Note(id)
	}
}

// release answers RELEASE of an open that was counted.
func (p *passthrough) release(ino, handle uint64) {
	p.mu.Lock()
	slot := 0
	if p.table != nil {
		var ok bool
		if slot, ok = p.table.Slot(handle); !ok || p.table.Inode(slot) != ino {
			p.mu.Unlock()
			return // it came before, to the last server
		}
	}
	f := p.opens[ino]
	if f == nil {
		p.mu.Unlock()
		return
	}
	f.count--
	last := f.count == 0
	if last {
		delete(p.opens, ino)
	}
	for unique, known := range p.known {
		if p.table != nil && known == slot {
			delete(p.known, unique)
		}
	}
	if p.table != nil {
		p.table.End(slot)
	}
	p.mu.Unlock()
	if last {
		p.end(f)
	}
	if p.table != nil {
		p.table.Remove(slot)
	}
}

// undo takes back an open whose caller had its reply from the last server, which says the
// kernel to this reply, and has released it since.
func (p *passthrough) undo(reply []byte) {
	if p.table == nil || len(reply) < outHeader+8 {
		return
	}
	handle := binary.NativeEndian.Uint64(reply[outHeader:])
	slot, ok := p.table.Slot(handle)
	if !ok {
		return
	}
	p.mu.Lock()
	_, known := p.known[unique(reply)]
	p.mu.Unlock()
	if !known {
		p.release(p.table.Inode(slot), handle)
	}
}

// restore goes on with what the last server has noted. pending are the unique numbers of
// requests that it has not answered. It is called before the first request.
func (p *passthrough) restore(noted []journal.Opened, pending map[uint64]bool) {
	p.known = map[uint64]int{}
	for _, o := range noted {
		if o.Ending {
			continue
		}
		if pending[o.Unique] {
			p.known[o.Unique] = o.Slot
		}
		f := p.opens[o.Inode]
		if f == nil {
			f = &openFile{}
			p.opens[o.Inode] = f
		}
		f.count++
		if o.Decided {
			f.decide.Do(func() { f.id = o.ID })
		}
	}
	for _, o := range noted {
		if !o.Ending {
			continue
		}
		// It may be the last but one of its inode.
		if f := p.opens[o.Inode]; o.ID != 0 && (f == nil || f.id != o.ID) {
			_ = p.from.unregister(o.ID) // the last server may have done so
		}
		p.table.Remove(o.Slot)
	}
}

// sweep takes back what the last server has registered and not noted: all from the highest
// that it did to the first that is registered now.
func (p *passthrough) sweep(probe BackingFile) {
	highest := p.table.Highest()
	next := highest + blindSweep
	if probe != nil {
		if id, err := p.from.register(probe.Fd()); err == nil {
			_ = p.from.unregister(id) // as end has it
			if id > highest {
				next = id
				defer p.table.Note(id)
			}
		}
	}
	for id := highest + 1; id < next; id++ {
		_ = p.from.unregister(id) // mostly there is none
	}
}

// blindSweep is how many identifiers are tried where nothing can be registered: as many as
// can be on their way.
const blindSweep = 64

// end takes back what is registered for a file. A new registration of the
// same inode may be made meanwhile: it is another one for the kernel too.
func (p *passthrough) end(f *openFile) {
	f.decide.Do(func() {}) // so that what was decided is seen here
	if f.id == 0 {
		return
	}
	// It can fail only when the connection is gone, and all with it.
	_ = p.from.unregister(f.id)
	if f.file != nil {
		f.file.Close()
	}
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
