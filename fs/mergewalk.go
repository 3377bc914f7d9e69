package fs

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// errReserved says that an entry lies below a reserved name.
var errReserved = errors.New("reserved name")

// find returns the inode that a name in a directory has, and the layer that
// gave it; 0 if there is none.
func (b *builder) find(dir uint32, name string) (ino uint32, layer uint16) {
	if l := b.links.find(b.inodes[dir].nlink, name); l != nil {
		return l.ino, l.layer
	}
	return 0, 0
}

// put gives a name in a directory to an inode, for this layer.
func (b *builder) put(dir uint32, name string, ino uint32) error {
	if err := b.checkRoom(); err != nil {
		return err
	}
	l := b.links.findOrAdd(b.inodes[dir].nlink, name)
	if old := &b.inodes[l.ino]; l.ino != 0 && l.ino != ino && old.format() != syscall.S_IFREG {
		b.last = 0 // what had the name may have been on the way there
	}
	l.ino, l.layer = ino, b.layer
	return nil
}

// pathLen returns the length of the path of a name in a directory.
func (b *builder) pathLen(dir uint32, name string) (int64, error) {
	n := b.inodes[dir].size + int64(len(name))
	if dir != b.root {
		n++ // the slash
	}
	if len(name) > maxName || n > maxPath {
		return 0, ErrNameTooLong
	}
	return n, nil
}

// findDir finds the directory at a cleaned path. It follows no symlinks.
func (b *builder) findDir(path string) (uint32, bool) {
	dir := b.root
	for path != "" {
		var name string
		name, path, _ = strings.Cut(path, "/")
		if dir, _ = b.find(dir, name); !b.inodes[dir].isDir() {
			return 0, false
		}
	}
	return dir, true
}

// makeDirs returns the directory at a cleaned path, after making what is
// missing of it.
func (b *builder) makeDirs(path string) (uint32, error) {
	if b.last != 0 && path == b.lastPath {
		return b.last, nil
	}
	dir, err := b.walk(path, b.stepMake)
	if err != nil {
		return 0, err
	}
	b.last, b.lastPath = dir, path
	return dir, nil
}

// A step is one component of a walk: to a directory, or into a symlink's
// target if that is not "".
type step func(dir uint32, name string) (next uint32, target string, err error)

// walk goes from the root along a path. It stays inside the root: there ".."
// is the root, and absolute targets of symlinks begin there.
func (b *builder) walk(path string, step step) (uint32, error) {
	dir, follows := b.root, 0
	for path != "" {
		var name string
		name, path, _ = strings.Cut(path, "/")
		switch name {
		case "", ".":
			continue
		case "..":
			dir = uint32(b.inodes[dir].off)
			continue
		}
		next, target, err := step(dir, name)
		if err != nil {
			return 0, err
		}
		if target == "" {
			dir = next
			continue
		}
		if follows++; follows > maxFollow {
			return 0, ErrLoop
		}
		if target[0] == '/' {
			dir = b.root
		}
		path = target + "/" + path
	}
	return dir, nil
}

// stepMake makes directories of what is missing and of what a lower layer has
// there, if that is no directory. Symlinks of this layer are followed: the
// layer was made by writing through them.
func (b *builder) stepMake(dir uint32, name string) (uint32, string, error) {
	if strings.HasPrefix(name, whiteoutMeta) {
		return 0, "", errReserved
	}
	ino, layer := b.find(dir, name)
	switch in := &b.inodes[ino]; {
	case ino != 0 && in.isDir():
		return ino, "", nil
	case ino == 0 || layer != b.layer:
		length, err := b.pathLen(dir, name)
		if err != nil {
			return 0, "", err
		}
		ino = b.newDir(dir, length)
		return ino, "", b.put(dir, name, ino)
	case in.format() == syscall.S_IFLNK:
		return 0, b.targets[in.off], nil
	}
	return 0, "", fmt.Errorf("%w: %q", ErrParent, name)
}

// stepFind goes to what is there, through symlinks of every layer.
func (b *builder) stepFind(dir uint32, name string) (uint32, string, error) {
	ino, _ := b.find(dir, name)
	switch in := &b.inodes[ino]; {
	case ino == 0:
		return 0, "", syscall.ENOENT
	case in.isDir():
		return ino, "", nil
	case in.format() == syscall.S_IFLNK:
		return 0, b.targets[in.off], nil
	}
	return 0, "", syscall.ENOTDIR
}
