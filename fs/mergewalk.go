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
func (b *Builder) find(dir uint32, name string) (ino uint32, layer uint16) {
	if l := b.links.find(b.inodes.at(dir).nlink, name); l != nil {
		return l.ino, l.layer
	}
	return 0, 0
}

// put gives a name in a directory to an inode, for this layer.
func (b *Builder) put(dir uint32, name string, ino uint32) error {
	if err := b.checkRoom(); err != nil {
		return err
	}
	set := b.inodes.at(dir).nlink
	l := b.links.find(set, name)
	if l == nil {
		if err := b.budget.Take(linkCost + int64(len(name))); err != nil {
			return err
		}
		if l = b.links.add(set, name); l == nil {
			return fmt.Errorf("%w: too many bytes of names", ErrTooLarge)
		}
	}
	if old := b.inodes.at(l.ino); l.ino != 0 && l.ino != ino && old.format() != syscall.S_IFREG {
		b.last = 0 // what had the name may have been on the way there
	}
	l.ino, l.layer = ino, b.layer
	if b.survey != nil {
		return b.survey.put(dir, name, l.text, ino)
	}
	return nil
}

// pathLen returns the length of the path of a name in a directory.
func (b *Builder) pathLen(dir uint32, name string) (int64, error) {
	n := b.inodes.at(dir).size + int64(len(name))
	if dir != b.root {
		n++ // the slash
	}
	if len(name) > maxName || n > maxPath {
		return 0, ErrNameTooLong
	}
	return n, nil
}

// findDir finds the directory at a cleaned path. It follows no symlinks.
func (b *Builder) findDir(path string) (uint32, bool) {
	dir := b.root
	for path != "" {
		var name string
		b.steps++
		name, path, _ = strings.Cut(path, "/")
		if dir, _ = b.find(dir, name); !b.inodes.at(dir).isDir() {
			return 0, false
		}
	}
	return dir, true
}

// makeDirs returns the directory at a cleaned path, after making what is
// missing of it.
func (b *Builder) makeDirs(path string) (uint32, error) {
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
func (b *Builder) walk(path string, step step) (uint32, error) {
	dir, w := b.root, pathWalk{path: path}
	defer func() { b.steps += int64(w.steps) }()
	for {
		name, _, ok := w.next()
		if !ok {
			return dir, nil
		}
		if err := w.tooLong(); err != nil {
			return 0, err
		}
		switch name {
		case "", ".":
			continue
		case "..":
			dir = uint32(b.inodes.at(dir).off)
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
		if err := w.follow(target); err != nil {
			return 0, err
		}
		if target[0] == '/' {
			dir = b.root
		}
	}
}

// stepMake makes directories of what is missing and of what a lower layer has
// there, if that is no directory. Symlinks of this layer are followed: the
// layer was made by writing through them.
func (b *Builder) stepMake(dir uint32, name string) (uint32, string, error) {
	if strings.HasPrefix(name, whiteoutMeta) {
		return 0, "", errReserved
	}
	ino, layer := b.find(dir, name)
	switch in := b.inodes.at(ino); {
	case ino != 0 && in.isDir():
		return ino, "", nil
	case ino == 0 || layer != b.layer:
		length, err := b.pathLen(dir, name)
		if err != nil {
			return 0, "", err
		}
		if ino, err = b.newDir(dir, length); err != nil {
			return 0, "", err
		}
		return ino, "", b.put(dir, name, ino)
	case in.format() == syscall.S_IFLNK:
		return 0, b.target(in), nil
	}
	return 0, "", fmt.Errorf("%w: %q", ErrParent, name)
}

// stepFind goes to what is there, through symlinks of every layer.
func (b *Builder) stepFind(dir uint32, name string) (uint32, string, error) {
	ino, layer := b.find(dir, name)
	switch in := b.inodes.at(ino); {
	case ino == 0:
		return 0, "", syscall.ENOENT
	case in.isDir():
		return ino, "", nil
	case in.format() == syscall.S_IFLNK:
		b.fromBelow = b.fromBelow || layer != b.layer
		return 0, b.target(in), nil
	}
	return 0, "", syscall.ENOTDIR
}
