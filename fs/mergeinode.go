package fs

import (
	"fmt"
	"math"
	"slices"
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

// What things take while layers are merged, in bytes: an inode with its number in
// the tree, a directory's record too, a link without the bytes of its name.
const (
	inodeCost  = 56
	dirCost    = 80
	linkCost   = 32
	extraCost  = 8
	sparseCost = 48
	extentCost = 24
	// reservedCost is what a reserved path takes beside its bytes.
	reservedCost = 64
)

// newSet returns the number of a new, empty set of names.
func (b *Builder) newSet() uint32 {
	b.dirSets++
	return b.dirSets - 1
}

// checkRoom says whether one more inode and one more link can be numbered.
func (b *Builder) checkRoom() error {
	if b.links.all.n >= math.MaxInt32 || b.inodes.n >= math.MaxInt32 || b.dirSets >= math.MaxInt32 {
		return ErrTooLarge
	}
	return nil
}

// newDir makes a directory as it is when no layer describes it: of root,
// 0755, at the beginning of 1970.
func (b *Builder) newDir(parent uint32, pathLen int64) (uint32, error) {
	if err := b.budget.Take(dirCost); err != nil {
		return 0, err
	}
	return b.inodes.push(inode{
		mode:  modeImplied,
		off:   int64(parent),
		size:  pathLen,
		nlink: b.newSet(),
	}), nil
}

// newInode makes the inode of an entry that is neither directory nor hard link.
func (b *Builder) newInode(e *layerindex.Entry) (uint32, error) {
	if err := b.budget.Take(inodeCost); err != nil {
		return 0, err
	}
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
		if err := b.budget.Take(int64(len(e.Linkname))); err != nil {
			return 0, err
		}
		in.mode, in.size, in.off = modeSymlink, int64(len(e.Linkname)), b.targets.add(e.Linkname, false)
	case layerindex.TypeChar:
		in.mode, in.off = syscall.S_IFCHR, deviceOf(e)
	case layerindex.TypeBlock:
		in.mode, in.off = syscall.S_IFBLK, deviceOf(e)
	case layerindex.TypeFifo:
		in.mode = syscall.S_IFIFO
	default:
		return 0, fmt.Errorf("%w: type %q", ErrEntry, byte(e.Type))
	}
	ino := b.inodes.push(in)
	if e.Type == layerindex.TypeReg && e.Sparse != nil {
		if err := b.setSparse(ino, e); err != nil {
			return 0, err
		}
	}
	return ino, b.setAttr(ino, e)
}

// deviceOf returns the number of a device: what Linux keeps of it, 12 bits of
// the major and 20 of the minor number. mknod(2) drops the others without an
// error, so an unpacked image has lost them.
func deviceOf(e *layerindex.Entry) int64 {
	return int64(e.Major&0xfff)<<32 | int64(e.Minor&0xfffff)
}

// target returns what a symlink holds.
func (b *Builder) target(in *inode) string { return b.targets.at(in.off, in.size) }

// setSparse notes where the data of a sparse file is.
func (b *Builder) setSparse(ino uint32, e *layerindex.Entry) error {
	if err := b.budget.Take(sparseCost + extentCost*int64(len(e.Sparse))); err != nil {
		return err
	}
	extents := make([]extent, 0, len(e.Sparse))
	end, out := int64(0), e.Off
	for _, x := range e.Sparse {
		if x.Off < end || x.Size < 0 || x.Off > e.Size || x.Size > e.Size-x.Off || x.Size > math.MaxInt64-out {
			return fmt.Errorf("%w: sparse file of %d bytes has %d at %d", ErrEntry, e.Size, x.Size, x.Off)
		}
		if x.Size > 0 {
			extents = append(extents, extent{off: x.Off, size: x.Size, out: out})
		}
		end, out = x.Off+x.Size, out+x.Size
	}
	x, err := b.extra(ino)
	if err == nil {
		b.sparse = append(b.sparse, extents)
		x.sparse = uint32(len(b.sparse))
	}
	return err
}

// extra returns what few inodes have, of an inode that now has it.
func (b *Builder) extra(ino uint32) (*extra, error) {
	in := b.inodes.at(ino)
	if in.extra == 0 {
		if err := b.budget.Take(extraCost); err != nil {
			return nil, err
		}
		in.extra = uint32(len(b.extras))
		b.extras = push(b.extras, extra{})
	}
	return &b.extras[in.extra], nil
}

// setAttr gives an inode the attributes of the entry that describes it, and no
// others.
func (b *Builder) setAttr(ino uint32, e *layerindex.Entry) error {
	if b.survey != nil {
		if err := b.survey.touch(ino); err != nil {
			return err
		}
	}
	in := b.inodes.at(ino)
	in.uid, in.gid = 0, 0
	if in.extra != 0 {
		b.extras[in.extra].xattrs = 0
		delete(b.merged, in.extra)
	}
	return b.addAttr(ino, e)
}

// addAttr gives an inode the attributes of a hard link to it. It keeps the
// xattrs that the link does not have: most tars have them only at the first
// name.
func (b *Builder) addAttr(ino uint32, e *layerindex.Entry) error {
	if e.ModNsec >= 1e9 {
		return fmt.Errorf("%w: %d nanoseconds", ErrEntry, e.ModNsec)
	}
	if b.survey != nil {
		if err := b.survey.touch(ino); err != nil {
			return err
		}
	}
	in := b.inodes.at(ino)
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
	return b.addXattrs(ino, e.Xattrs)
}

// addXattrs gives an inode xattrs. Those of one entry are kept once for all
// inodes that have the same. An ACL changes the mode, as it does when it is set on a
// disk.
func (b *Builder) addXattrs(ino uint32, list []layerindex.Xattr) error {
	in := b.inodes.at(ino)
	s, err := b.sets.share(list, in.mode)
	if err != nil {
		return err
	}
	in.mode = s.mode.applied(in.mode)
	set := s.set
	if set == 0 {
		return nil
	}
	x, err := b.extra(ino)
	if err != nil {
		return err
	}
	at := b.inodes.at(ino).extra
	old, merged := b.merged[at]
	switch {
	case x.xattrs == set && !merged:
		return nil
	case x.xattrs == 0 && !merged:
		x.xattrs = set
		return nil
	case !merged:
		old = slices.Clone(b.sets.list[x.xattrs])
	}
	before := len(old)
	all, err := mergeXattrs(old, b.sets.list[set])
	if err != nil {
		return err
	}
	if !merged {
		before = 0
	}
	b.merged[at] = all
	return b.budget.Take(xattrCost * int64(len(all)-before))
}
