package fs_test

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// naive extracts layers on a real directory, one entry after the other, as
// docs/semantics.md says and with no regard to speed. It shares nothing with
// Merge but the names of the errors. Paths are relative to root, "" is root.
type naive struct {
	root   string
	spare  string // a directory of the same file system, for reserved paths
	spares int    // files that were made there
	owners bool   // may give files away

	made     map[string]bool   // paths that the layer at hand has made
	reserved map[string]string // its reserved paths: where the file really is
}

var errSkip = errors.New("skip")

// refusal says at which entry of which layer naive had to refuse.
type refusal struct {
	layer, entry int
	err          error
}

// extract applies layers. Errors of the file system, which no rule foresees,
// are returned as err.
func (n *naive) extract(stack [][]member) (refused *refusal, err error) {
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(ioError)
			if !ok {
				panic(r)
			}
			err = e.error
		}
	}()
	must(os.MkdirAll(n.root, 0o755))
	n.describe("", layerindex.Entry{Type: layerindex.TypeDir, Mode: 0o755}, false)
	for i, layer := range stack {
		n.made, n.reserved = map[string]bool{}, map[string]string{}
		must(os.MkdirAll(n.spare, 0o755))
		for _, m := range layer {
			n.hide(m)
		}
		for j, m := range layer {
			if err := n.add(m); err != nil && err != errSkip {
				return &refusal{i, j, err}, nil
			}
		}
		must(os.RemoveAll(n.spare)) // what it still names is no hard link
	}
	return nil, nil
}

type ioError struct{ error }

// must ends extract with an error of the file system.
func must(err error) {
	if err != nil {
		panic(ioError{err})
	}
}

func (n *naive) real(p string) string { return n.root + "/" + p }

// lstat returns the type of a path, or false.
func (n *naive) lstat(p string) (iofs.FileMode, bool) {
	fi, err := os.Lstat(n.real(p))
	if errors.Is(err, iofs.ErrNotExist) {
		return 0, false
	}
	must(err)
	return fi.Mode().Type(), true
}

func parentOf(p string) string { return strings.TrimPrefix(path.Dir("/"+p), "/") }

// change does something to a directory and puts its mtime back.
func (n *naive) change(dir string, do func() error) {
	var st unix.Stat_t
	must(unix.Lstat(n.real(dir), &st))
	must(do())
	must(unix.UtimesNanoAt(unix.AT_FDCWD, n.real(dir), []unix.Timespec{st.Mtim, st.Mtim}, 0))
}

func (n *naive) remove(p string) {
	n.change(parentOf(p), func() error { return os.RemoveAll(n.real(p)) })
	for q := range n.made {
		if q == p || strings.HasPrefix(q, p+"/") {
			delete(n.made, q)
		}
	}
}

// parts cleans a name; climbs says that it leaves the root.
func parts(name string) (list []string, climbs bool) {
	for _, c := range strings.Split(name, "/") {
		if c == ".." && len(list) == 0 {
			climbs = true
		} else if c == ".." {
			list = list[:len(list)-1]
		} else if c != "" && c != "." {
			list = append(list, c)
		}
	}
	return list, climbs
}

func hasReserved(list []string) bool {
	return slices.ContainsFunc(list, func(c string) bool { return strings.HasPrefix(c, ".wh..wh.") })
}

// hide removes what a whiteout or opaque marker of the layer hides.
func (n *naive) hide(m member) {
	list, climbs := parts(m.Name)
	if climbs || len(list) == 0 {
		return
	}
	base, dir := list[len(list)-1], list[:len(list)-1]
	if !strings.HasPrefix(base, ".wh.") || hasReserved(dir) {
		return
	}
	at := ""
	for _, c := range dir {
		at = path.Join(at, c)
		if typ, ok := n.lstat(at); !ok || !typ.IsDir() {
			return
		}
	}
	hidden := strings.TrimPrefix(base, ".wh.")
	switch {
	case base == ".wh..wh..opq":
		entries, err := os.ReadDir(n.real(at))
		must(err)
		for _, e := range entries {
			n.remove(path.Join(at, e.Name()))
		}
	case strings.HasPrefix(base, ".wh..wh.") || hidden == "" || hidden == "." || hidden == "..":
	default:
		if p := path.Join(at, hidden); p != "" {
			n.remove(p)
		}
	}
}

func (n *naive) add(m member) error {
	if m.Name == "" {
		return nil
	}
	list, climbs := parts(m.Name)
	if climbs {
		return fs.ErrEscape
	}
	if len(list) == 0 {
		if m.Type != layerindex.TypeDir {
			return fs.ErrEntry
		}
		n.describe("", m.Entry, false)
		return nil
	}
	base := list[len(list)-1]
	switch {
	case base == ".wh." || base == ".wh.." || base == ".wh...":
		return fs.ErrWhiteoutName
	case base == ".wh..wh..opq" && !hasReserved(list[:len(list)-1]):
		return nil
	case hasReserved(list):
		return n.addReserved(strings.Join(list, "/"), m)
	case strings.HasPrefix(base, ".wh."):
		return nil
	}
	dir, err := n.parents(list[:len(list)-1])
	if err != nil {
		return err
	}
	if len(base) > 255 {
		return fs.ErrNameTooLong
	}
	return n.put(dir, path.Join(dir, base), m)
}

// parents makes the directories on the way and returns the real path.
func (n *naive) parents(todo []string) (string, error) {
	at, links := "", 0
	for len(todo) > 0 {
		c := todo[0]
		todo = todo[1:]
		if c == "" || c == "." {
			continue
		}
		if c == ".." {
			at = parentOf(at)
			continue
		}
		if strings.HasPrefix(c, ".wh..wh.") {
			return "", errSkip
		}
		p := path.Join(at, c)
		typ, ok := n.lstat(p)
		switch {
		case ok && typ.IsDir():
			at = p
		case !ok || !n.made[p]:
			n.remove(p)
			n.mkdir(p)
			n.describe(p, layerindex.Entry{Type: layerindex.TypeDir, Mode: 0o755}, false)
			at = p
		case typ == iofs.ModeSymlink:
			if links++; links > 40 {
				return "", fs.ErrLoop
			}
			at, todo = n.follow(at, p, todo)
		default:
			return "", fs.ErrParent
		}
	}
	return at, nil
}

// follow replaces a symlink by the components of its target.
func (n *naive) follow(at, p string, todo []string) (string, []string) {
	target, err := os.Readlink(n.real(p))
	must(err)
	if strings.HasPrefix(target, "/") {
		at = ""
	}
	return at, append(strings.Split(target, "/"), todo...)
}

func (n *naive) mkdir(p string) {
	n.change(parentOf(p), func() error { return os.Mkdir(n.real(p), 0o755) })
	n.made[p] = true
}

// put makes what an entry describes at a path.
func (n *naive) put(dir, p string, m member) error {
	if m.Type == layerindex.TypeLink {
		return n.putLink(dir, p, m)
	}
	if m.Type == layerindex.TypeSymlink && m.Linkname == "" {
		return fs.ErrEntry
	}
	if m.Type == layerindex.TypeDir {
		if typ, ok := n.lstat(p); !ok || !typ.IsDir() {
			n.remove(p)
			n.mkdir(p)
		}
		n.made[p] = true
	} else {
		n.remove(p)
		n.change(dir, func() error { return create(n.real(p), m) })
		n.made[p] = true
	}
	n.describe(p, m.Entry, false)
	return nil
}

// create makes a new inode that is no directory.
func create(real string, m member) error {
	switch m.Type {
	case layerindex.TypeSymlink:
		return os.Symlink(m.Linkname, real)
	case layerindex.TypeFifo:
		return unix.Mkfifo(real, 0o600)
	case layerindex.TypeChar:
		return testenv.Mknod(real, unix.S_IFCHR|0o600, m.Major, m.Minor)
	case layerindex.TypeBlock:
		return testenv.Mknod(real, unix.S_IFBLK|0o600, m.Major, m.Minor)
	}
	return os.WriteFile(real, m.Content(), 0o600)
}

func (n *naive) addReserved(p string, m member) error {
	if m.Type == layerindex.TypeDir {
		return nil
	}
	n.spares++
	real := filepath.Join(n.spare, fmt.Sprint(n.spares))
	if m.Type == layerindex.TypeLink {
		target, _, err := n.target(m.Linkname)
		if err != nil {
			return err
		}
		must(os.Link(target, real))
	} else {
		must(create(real, m))
	}
	n.describeReal(real, m.Entry, m.Type == layerindex.TypeLink)
	n.reserved[p] = real
	return nil
}

// target finds what a hard link means: the real file, and its path in root.
func (n *naive) target(name string) (real, p string, err error) {
	todo, _ := parts(name)
	if real, ok := n.reserved[strings.Join(todo, "/")]; ok {
		return real, "", nil
	}
	at, links := "", 0
	for len(todo) > 1 {
		p := path.Join(at, todo[0])
		c := todo[0]
		todo = todo[1:]
		if c == "" || c == "." {
			continue
		}
		if c == ".." {
			at = parentOf(at)
			continue
		}
		typ, ok := n.lstat(p)
		if links++; links > 40+len(name) || !ok || typ != iofs.ModeSymlink && !typ.IsDir() {
			return "", "", fs.ErrLinkTarget
		}
		if typ.IsDir() {
			at = p
			continue
		}
		at, todo = n.follow(at, p, todo)
	}
	if len(todo) == 0 {
		return "", "", fs.ErrLinkTarget
	}
	p = path.Join(at, todo[0])
	if typ, ok := n.lstat(p); !ok || typ.IsDir() {
		return "", "", fs.ErrLinkTarget
	}
	return n.real(p), p, nil
}

func (n *naive) putLink(dir, p string, m member) error {
	real, target, err := n.target(m.Linkname)
	if err != nil {
		return err
	}
	if target != "" && (target == p || strings.HasPrefix(target, p+"/")) {
		return fs.ErrLinkTarget
	}
	n.remove(p)
	n.change(dir, func() error { return os.Link(real, n.real(p)) })
	n.made[p] = true
	n.describe(p, m.Entry, true)
	return nil
}

func (n *naive) describe(p string, e layerindex.Entry, isLink bool) {
	n.describeReal(n.real(p), e, isLink)
}

// describeReal gives a file the attributes of an entry. A hard link adds its
// xattrs to those that are there.
func (n *naive) describeReal(real string, e layerindex.Entry, isLink bool) {
	var st unix.Stat_t
	must(unix.Lstat(real, &st))
	if n.owners {
		if !isLink {
			must(os.Lchown(real, 0, 0)) // 2^32-1 leaves it so
		}
		must(os.Lchown(real, int(e.UID), int(e.GID)))
	}
	typ := st.Mode & unix.S_IFMT
	if !isLink {
		for _, x := range realXattrs(real) {
			must(unix.Lremovexattr(real, x.Name))
		}
	}
	for _, x := range e.Xattrs {
		isUser := strings.HasPrefix(x.Name, "user.")
		if strings.HasPrefix(x.Name, "trusted.overlay.") || isUser && typ != unix.S_IFREG && typ != unix.S_IFDIR {
			continue
		}
		must(unix.Lsetxattr(real, x.Name, []byte(x.Value), 0))
	}
	if typ != unix.S_IFLNK {
		must(unix.Chmod(real, e.Mode))
	}
	t := unix.Timespec{Sec: e.ModSec, Nsec: int64(e.ModNsec)}
	must(unix.UtimesNanoAt(unix.AT_FDCWD, real, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW))
}

// realXattrs lists the xattrs of a file but those that the machine adds.
func realXattrs(real string) []layerindex.Xattr {
	buf := make([]byte, 4096)
	size, err := unix.Llistxattr(real, buf)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	must(err)
	var list []layerindex.Xattr
	for name := range strings.SplitSeq(string(buf[:size]), "\x00") {
		if name == "" || strings.HasPrefix(name, "security.") || strings.HasPrefix(name, "system.") {
			continue
		}
		value := make([]byte, 4096)
		size, err := unix.Lgetxattr(real, name, value)
		must(err)
		list = append(list, layerindex.Xattr{Name: name, Value: string(value[:size])})
	}
	slices.SortFunc(list, func(a, b layerindex.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return list
}
