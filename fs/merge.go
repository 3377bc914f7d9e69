package fs

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"syscall"

	"github.com/imgfs/imgfs/layerindex"
)

// Merge makes one tree of layers, the base first. The same layers give the
// same tree with the same inode numbers. The package documentation has the
// rules.
//
// A layer that no rule gives a meaning to is refused: the error is an
// *EntryError that wraps one of the reasons in this package.
func Merge(layers []Layer) (*Tree, error) {
	if len(layers) > math.MaxUint16 {
		return nil, fmt.Errorf("%w: %d layers", ErrTooLarge, len(layers))
	}
	b := newBuilder()
	count := 0
	for _, l := range layers {
		count += l.Count
	}
	b.inodes = slices.Grow(b.inodes, count)
	b.links.reserve(count)
	for i, l := range layers {
		b.layer = uint16(i)
		b.sources = append(b.sources, source{l.Name, l.Content})
		if err := b.apply(l); err != nil {
			return nil, err
		}
	}
	return b.freeze()
}

// A builder is the tree while layers are applied to it. Inodes and links that
// fall out of the tree stay where they are, unreachable, until freeze: hiding
// a directory costs the same whatever it holds.
//
// A directory's inode has in off its parent's inode, in size the length of its
// path and in nlink the number of its set of names.
type builder struct {
	inodes  []inode // 0 is no inode
	root    uint32
	links   linkTable
	sets    uint32   // sets of names so far
	targets []string // of symlinks
	sources []source
	// What few inodes have, by inode. inode.extra is 1 if it has either.
	xattrs map[uint32][]layerindex.Xattr // sorted by name
	sparse map[uint32][]extent

	// Of the layer that is being applied:
	layer    uint16
	reserved map[string]uint32 // inodes by reserved path

	// The directory of the last entry: tars are grouped by directory.
	lastPath string
	last     uint32 // 0 if not known
}

func newBuilder() *builder {
	b := &builder{
		inodes: make([]inode, 1),
		links:  newLinkTable(),
		xattrs: make(map[uint32][]layerindex.Xattr),
		sparse: make(map[uint32][]extent),
	}
	b.root = b.newDir(0, 0)
	b.inodes[b.root].off = int64(b.root)
	return b
}

// apply changes the tree as a layer says: first it takes away what the layer
// hides of the lower ones, then it adds what the layer has. So whiteouts never
// act on their own layer, wherever they stand in it.
func (b *builder) apply(l Layer) error {
	if b.layer > 0 {
		marked := l.Marked
		if marked == nil {
			marked = l.Entries
		}
		for e := range marked {
			if !strings.Contains(e.Name, whiteoutPrefix) {
				continue
			}
			if p, err := placeOf(e.Name); err == nil {
				b.hide(p)
			}
		}
	}
	b.last, b.reserved = 0, nil
	for e := range l.Entries {
		if err := b.add(e); err != nil {
			return &EntryError{Layer: l.Name, Name: e.Name, Err: err}
		}
	}
	return nil
}

// hide takes away what a whiteout or an opaque marker hides. What leads there
// must be directories: through a symlink nothing is hidden.
func (b *builder) hide(p place) {
	if p.kind != kindWhiteout && p.kind != kindOpaque {
		return
	}
	dir, ok := b.findDir(p.dir)
	switch {
	case !ok:
	case p.kind == kindOpaque:
		b.inodes[dir].nlink = b.newSet()
	default:
		if l := b.links.find(b.inodes[dir].nlink, p.base); l != nil {
			l.ino = 0
		}
	}
}

// add adds an entry, if its name is not a whiteout's.
func (b *builder) add(e *layerindex.Entry) error {
	p, err := placeOf(e.Name)
	if err != nil {
		return err
	}
	switch p.kind {
	case kindRoot:
		if e.Type != layerindex.TypeDir {
			return fmt.Errorf("%w: the root must be a directory", ErrEntry)
		}
		return b.setAttr(b.root, e)
	case kindReserved:
		return b.addReserved(p.dir, e)
	case kindEntry:
		dir, err := b.makeDirs(p.dir)
		if errors.Is(err, errReserved) {
			return nil
		} else if err != nil {
			return err
		}
		return b.addTo(dir, p.base, e)
	}
	return nil
}

// addTo adds an entry as a name in a directory, in place of what had the name.
// Only a directory in place of a directory keeps what is in it.
func (b *builder) addTo(dir uint32, name string, e *layerindex.Entry) error {
	length, err := b.pathLen(dir, name)
	if err != nil {
		return err
	}
	switch e.Type {
	case layerindex.TypeLink:
		return b.addLink(dir, name, e)
	case layerindex.TypeDir:
		ino, _ := b.find(dir, name)
		if ino == 0 || !b.inodes[ino].isDir() {
			ino = b.newDir(dir, length)
		}
		if err := b.setAttr(ino, e); err != nil {
			return err
		}
		return b.put(dir, name, ino)
	}
	ino, err := b.newInode(e)
	if err != nil {
		return err
	}
	return b.put(dir, name, ino)
}

// addReserved keeps an entry with a reserved path for the hard links of this
// layer. It changes nothing that is shown.
func (b *builder) addReserved(path string, e *layerindex.Entry) error {
	var ino uint32
	var err error
	switch e.Type {
	case layerindex.TypeDir:
		return nil
	case layerindex.TypeLink:
		if _, _, ino, err = b.linkTarget(e.Linkname); err == nil {
			err = b.addAttr(ino, e)
		}
	default:
		ino, err = b.newInode(e)
	}
	if err != nil {
		return err
	}
	if b.reserved == nil {
		b.reserved = make(map[string]uint32)
	}
	b.reserved[path] = ino
	return nil
}

// addLink adds one more name of an inode.
func (b *builder) addLink(dir uint32, name string, e *layerindex.Entry) error {
	inDir, inName, ino, err := b.linkTarget(e.Linkname)
	if err != nil {
		return err
	}
	if inDir == dir && inName == name {
		return fmt.Errorf("%w %q is the link itself", ErrLinkTarget, e.Linkname)
	}
	// The name must be free before it can be a link: what was there is gone,
	// and the target must not be in it.
	if old, _ := b.find(dir, name); inDir != 0 && b.inodes[old].isDir() && b.within(inDir, old) {
		return fmt.Errorf("%w %q is below the link itself", ErrLinkTarget, e.Linkname)
	}
	if err := b.addAttr(ino, e); err != nil {
		return err
	}
	return b.put(dir, name, ino)
}

// linkTarget finds what a hard link's target is at this position: any layer's,
// and through symlinks of any layer. inDir is 0 for a reserved path.
func (b *builder) linkTarget(target string) (inDir uint32, inName string, ino uint32, err error) {
	path, _ := clean(target)
	if ino, ok := b.reserved[path]; ok {
		return 0, "", ino, nil
	}
	dirPath, name := split(path)
	dir, err := b.walk(dirPath, b.stepFind)
	if err != nil {
		return 0, "", 0, fmt.Errorf("%w %q: %w", ErrLinkTarget, target, err)
	}
	ino, _ = b.find(dir, name)
	switch {
	case path == "" || b.inodes[ino].isDir():
		return 0, "", 0, fmt.Errorf("%w %q is a directory", ErrLinkTarget, target)
	case ino == 0:
		return 0, "", 0, fmt.Errorf("%w %q: %w", ErrLinkTarget, target, syscall.ENOENT)
	}
	return dir, name, ino, nil
}

// within says whether dir is ancestor or below it.
func (b *builder) within(dir, ancestor uint32) bool {
	for dir != ancestor && dir != b.root {
		dir = uint32(b.inodes[dir].off)
	}
	return dir == ancestor
}
