package packages

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/imgfs/imgfs/fs"
)

// The layout of rpm's ndb, which lib/backend/ndb/rpmpkg.c of rpm has. All numbers are
// little-endian. Pages of slots lead to blobs, which are counted in blocks.
const (
	ndbHeader    = 0x506d7052 // "RpmP"
	ndbSlot      = 0x746f6c53 // "Slot"
	ndbBlob      = 0x53626c42 // "BlbS"
	ndbPage      = 4096
	ndbSlotSize  = 16
	ndbBlock     = 16
	ndbFirstSlot = 2 // the header takes the place of the first slots
)

// readNDB reads rpm's database Packages.db.
func readNDB(ctx context.Context, _ *fs.Tree, _ string, n fs.Node) ([]Package, error) {
	f, err := open(ctx, n)
	if err != nil {
		return nil, err
	}
	page := make([]byte, ndbPage)
	if err := readFull(f, page[:32], 0); err != nil {
		return nil, err
	}
	pages := int64(binary.LittleEndian.Uint32(page[12:]))
	if binary.LittleEndian.Uint32(page) != ndbHeader || binary.LittleEndian.Uint32(page[4:]) != 0 {
		return nil, fmt.Errorf("%w: no header of ndb", ErrFormat)
	}
	if pages == 0 || pages*ndbPage > f.size {
		return nil, fmt.Errorf("%w: its slots end at byte %d of %d", ErrFormat, pages*ndbPage, f.size)
	}
	var all []Package
	total := int64(0)
	for i := range pages {
		if err := readFull(f, page, i*ndbPage); err != nil {
			return nil, err
		}
		for at := 0; at < ndbPage; at += ndbSlotSize {
			if i == 0 && at < ndbFirstSlot*ndbSlotSize {
				continue
			}
			slot := page[at:]
			if binary.LittleEndian.Uint32(slot) != ndbSlot {
				return nil, fmt.Errorf("%w: no slot at byte %d", ErrFormat, i*ndbPage+int64(at))
			}
			index, block := binary.LittleEndian.Uint32(slot[4:]), int64(binary.LittleEndian.Uint32(slot[8:]))
			if block == 0 {
				continue // free
			}
			blob, err := readNDBBlob(f, index, block*ndbBlock)
			if err != nil {
				return nil, err
			}
			if total += int64(len(blob)); total > MaxSize {
				return nil, fmt.Errorf("%w: headers of more than %d bytes", ErrTooLarge, int64(MaxSize))
			}
			p, err := parseHeader(blob)
			if err != nil {
				return nil, fmt.Errorf("package %d: %w", index, err)
			}
			if all, err = add(all, p); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// readNDBBlob reads the header of a package.
func readNDBBlob(f *file, index uint32, off int64) ([]byte, error) {
	head := make([]byte, 16)
	if err := readFull(f, head, off); err != nil {
		return nil, err
	}
	size := int64(binary.LittleEndian.Uint32(head[12:]))
	if binary.LittleEndian.Uint32(head) != ndbBlob || binary.LittleEndian.Uint32(head[4:]) != index || index == 0 || size > min(maxData, f.size-off-16) {
		return nil, fmt.Errorf("%w: no blob of package %d at byte %d", ErrFormat, index, off)
	}
	blob := make([]byte, size)
	return blob, readFull(f, blob, off+16)
}

// readFull reads len(p) bytes; a database that ends before them is damaged.
func readFull(f *file, p []byte, off int64) error {
	_, err := f.ReadAt(p, off)
	if err == io.EOF {
		return fmt.Errorf("%w: it ends before byte %d", ErrFormat, off+int64(len(p)))
	}
	return err
}

// readBDB says that a database is not read.
func readBDB(context.Context, *fs.Tree, string, fs.Node) ([]Package, error) {
	return nil, fmt.Errorf("%w: rpm's database in Berkeley DB, as before rpm 4.16", ErrUnsupported)
}
