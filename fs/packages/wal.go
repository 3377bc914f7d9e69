package packages

import (
	"context"
	"encoding/binary"
	"errors"
	iofs "io/fs"

	"github.com/imgfs/imgfs/fs"
)

// A wal is SQLite's write-ahead log of a database: pages that belong in the place of
// those of the database. sqlite.org/fileformat2.html, "The Write-Ahead Log", has its
// format. It is read here as SQLite itself would have to write beside the database.
type wal struct {
	*file
	pageSize int64
	pages    map[uint32]int64 // where the log has a page that was committed; nil: none
	size     int64            // of the database with it
}

const (
	walHeader = 32
	walFrame  = 24
	walMagic  = 0x377f0682 // and 1 more if sums are of big-endian numbers
)

// openWAL reads the log at a path. There need be none.
func openWAL(ctx context.Context, t *fs.Tree, path string) (*wal, error) {
	n, err := t.Lookup(path, true)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f, err := open(ctx, n)
	if err != nil {
		return nil, err
	}
	w := &wal{file: f}
	return w, w.scan()
}

// scan finds the pages of all transactions that were committed. What follows the first
// frame that does not belong is what is left of an older log.
func (w *wal) scan() error {
	head := make([]byte, walHeader)
	if w.file.size < walHeader {
		return nil
	}
	if err := readFull(w.file, head, 0); err != nil {
		return err
	}
	magic := binary.BigEndian.Uint32(head)
	w.pageSize = int64(binary.BigEndian.Uint32(head[8:]))
	s := walSum{order: binary.LittleEndian}
	if magic == walMagic+1 {
		s.order = binary.BigEndian
	}
	s.add(head[:24])
	if magic&^1 != walMagic || w.pageSize < 512 || w.pageSize > 65536 || w.pageSize&(w.pageSize-1) != 0 || !s.is(head[24:]) {
		return nil // SQLite takes it for none, too
	}
	frame := make([]byte, walFrame+w.pageSize)
	committed, waiting := map[uint32]int64{}, map[uint32]int64{}
	size := int64(0)
	for off := int64(walHeader); off+int64(len(frame)) <= w.file.size; off += int64(len(frame)) {
		if err := readFull(w.file, frame, off); err != nil {
			return err
		}
		s.add(frame[:8])
		s.add(frame[walFrame:])
		if string(frame[8:16]) != string(head[16:24]) || !s.is(frame[16:]) {
			break
		}
		waiting[binary.BigEndian.Uint32(frame)] = off + walFrame
		if pages := binary.BigEndian.Uint32(frame[4:]); pages > 0 {
			for page, at := range waiting {
				committed[page] = at
			}
			clear(waiting)
			size = int64(pages) * w.pageSize
		}
	}
	if size > 0 {
		w.pages, w.size = committed, size
	}
	return nil
}

// A walSum is the sum of all that a log had so far.
type walSum struct {
	order  binary.ByteOrder
	s0, s1 uint32
}

func (s *walSum) add(p []byte) {
	for ; len(p) >= 8; p = p[8:] {
		s.s0 += s.order.Uint32(p) + s.s1
		s.s1 += s.order.Uint32(p[4:]) + s.s0
	}
}

func (s *walSum) is(p []byte) bool {
	return binary.BigEndian.Uint32(p) == s.s0 && binary.BigEndian.Uint32(p[4:]) == s.s1
}
