package fs

import (
	"fmt"
	"math"
	"syscall"

	"github.com/imgfs/imgfs/layerindex"
)

// Modes of what no layer describes.
const (
	modeImplied = syscall.S_IFDIR | 0o755
	modeSymlink = syscall.S_IFLNK | 0o777
	permBits    = 0o7777
)

// noOwner is none to chown(2), which leaves the owner as it is.
const noOwner = math.MaxUint32

// newSet returns the number of a new, empty set of names.
func (b *builder) newSet() uint32 {
	b.sets++
	return b.sets - 1
}

// checkRoom says whether one more inode and one more link can be numbered.
func (b *builder) checkRoom() error {
	if len(b.links.all) >= math.MaxInt32 || len(b.inodes) >= math.MaxInt32 || b.sets >= math.MaxInt32 {
		return ErrTooLarge
	}
	return nil
}

// newDir makes a directory as it is when no layer describes it: of root,
// 0755, at the beginning of 1970.
func (b *builder) newDir(parent uint32, pathLen int64) uint32 {
	b.inodes = push(b.inodes, inode{
		mode:  modeImplied,
		off:   int64(parent),
		size:  pathLen,
		nlink: b.newSet(),
	})
	return uint32(len(b.inodes) - 1)
}

// newInode makes the inode of an entry that is neither directory nor hard link.
func (b *builder) newInode(e *layerindex.Entry) (uint32, error) {
	in := inode{layer: b.layer}
	switch e.Type {
	case layerindex.TypeReg:
		in.mode, in.size, in.off = syscall.S_IFREG, e.Size, e.Off
		if e.Size < 0 || e.Off < 0 || e.Sparse == nil && e.Size > math.MaxInt64-e.Off {
			return 0, fmt.Errorf("%w: %d bytes at %d", ErrEntry, e.Size, e.Off)
		}
	case layerindex.TypeSymlink:
		// symlink(2) refuses both.
		if e.Linkname == "" || len(e.Linkname) >= maxPath {
			return 0, fmt.Errorf("%w: symlink target of %d bytes", ErrEntry, len(e.Linkname))
		}
		in.mode, in.size, in.off = modeSymlink, int64(len(e.Linkname)), int64(len(b.targets))
		b.targets = append(b.targets, e.Linkname)
	case layerindex.TypeChar:
		in.mode, in.off = syscall.S_IFCHR, deviceOf(e)
	case layerindex.TypeBlock:
		in.mode, in.off = syscall.S_IFBLK, deviceOf(e)
	case layerindex.TypeFifo:
		in.mode = syscall.S_IFIFO
	default:
		return 0, fmt.Errorf("%w: type %q", ErrEntry, byte(e.Type))
	}
	b.inodes = push(b.inodes, in)
	ino := uint32(len(b.inodes) - 1)
	if e.Type == layerindex.TypeReg && e.Sparse != nil {
		if err := b.setSparse(ino, e); err != nil {
			return 0, err
		}
	}
	return ino, b.setAttr(ino, e)
}

// deviceOf returns the number of a device: what Linux keeps of it, 12 bits of
// the major and 20 of the minor number. mknod(2) drops the others without a
// word, so they are lost to whoever unpacks.
func deviceOf(e *layerindex.Entry) int64 {
	return int64(e.Major&0xfff)<<32 | int64(e.Minor&0xfffff)
}

// setSparse notes where the data of a sparse file is.
func (b *builder) setSparse(ino uint32, e *layerindex.Entry) error {
	extents := []extent{}
	end, out := int64(0), e.Off
	for _, x := range e.Sparse {
		if x.Off < end || x.Size < 0 || x.Size > e.Size-x.Off || x.Size > math.MaxInt64-out {
			return fmt.Errorf("%w: sparse file of %d bytes has %d at %d", ErrEntry, e.Size, x.Size, x.Off)
		}
		if x.Size > 0 {
			extents = append(extents, extent{off: x.Off, size: x.Size, out: out})
		}
		end, out = x.Off+x.Size, out+x.Size
	}
	b.sparse[ino] = extents
	b.inodes[ino].extra = 1
	return nil
}

// setAttr gives an inode the attributes of the entry that describes it, and no
// others.
func (b *builder) setAttr(ino uint32, e *layerindex.Entry) error {
	delete(b.xattrs, ino)
	b.inodes[ino].uid, b.inodes[ino].gid = 0, 0
	return b.addAttr(ino, e)
}

// addAttr gives an inode the attributes of a hard link to it. It keeps the
// xattrs that the link does not have: most tars have them only at the first
// name.
func (b *builder) addAttr(ino uint32, e *layerindex.Entry) error {
	if e.ModNsec >= 1e9 {
		return fmt.Errorf("%w: %d nanoseconds", ErrEntry, e.ModNsec)
	}
	in := &b.inodes[ino]
	if in.format() != syscall.S_IFLNK {
		in.mode = in.mode&^permBits | uint16(e.Mode&permBits)
	}
	if e.UID != noOwner {
		in.uid = e.UID
	}
	if e.GID != noOwner {
		in.gid = e.GID
	}
	in.modSec, in.modNsec = e.ModSec, e.ModNsec
	if len(e.Xattrs) == 0 {
		return nil
	}
	xattrs, err := addXattrs(b.xattrs[ino], e.Xattrs, in.mode)
	if err != nil || len(xattrs) == 0 {
		return err
	}
	b.xattrs[ino] = xattrs
	in.extra = 1
	return nil
}
