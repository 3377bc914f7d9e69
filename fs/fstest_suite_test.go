package fs_test

import (
	"context"
	"fmt"
	iofs "io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/continuity/fs/fstest"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestFSSuite runs containerd's suite for snapshotters: each of its steps
// becomes a layer, and what imgfs shows of the layers so far must be what the
// steps leave on a real directory.
func TestFSSuite(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("owners need root")
	}
	fstest.FSSuite(t, &layerApplier{t: t})
}

// A layerApplier makes layers of the suite's steps. The suite runs one test
// after the other, each with a new context.
type layerApplier struct {
	t      *testing.T
	dir    string
	layers [][]byte
	steps  int
}

var _ fstest.TestApplier = (*layerApplier)(nil)

// TestContext implements fstest.TestApplier: a new stack of layers begins.
func (a *layerApplier) TestContext(ctx context.Context) (context.Context, func(), error) {
	dir, err := os.MkdirTemp("", "imgfs-fstest-")
	if err != nil {
		return nil, nil, err
	}
	a.dir, a.layers = dir, nil
	return ctx, func() { os.RemoveAll(dir) }, os.Mkdir(a.state(), 0o755)
}

// state is the real directory to which all steps are applied.
func (a *layerApplier) state() string { return filepath.Join(a.dir, "state") }

// Apply implements fstest.TestApplier: what a step changes is a layer, and the
// directory that it returns is what imgfs makes of all layers.
func (a *layerApplier) Apply(_ context.Context, step fstest.Applier) (string, func(), error) {
	before := snapshotOf(a.t, a.state())
	if err := step.Apply(a.state()); err != nil {
		return "", nil, err
	}
	a.layers = append(a.layers, tarOf(difference(before, snapshotOf(a.t, a.state()))))
	tree, closeTree, err := openTars(a.t, filepath.Join(a.dir, "cache"), a.layers)
	if err != nil {
		return "", nil, err
	}
	defer closeTree()
	a.steps++
	out := filepath.Join(a.dir, fmt.Sprint("out", a.steps))
	return out, func() { os.RemoveAll(out) }, copyOut(a.t, tree, out)
}

// A snapshot is a directory by path, "" is itself, and the paths of each inode.
type snapshot struct {
	files map[string]realFile
	names map[uint64][]string
}

func snapshotOf(t *testing.T, dir string) snapshot {
	s := snapshot{make(map[string]realFile), make(map[uint64][]string)}
	for _, f := range realFiles(t, dir, "") {
		s.files[f.path] = f
		s.names[f.stat.Ino] = append(s.names[f.stat.Ino], f.path)
	}
	return s
}

// difference is the layer that makes after of before. As in layers of image
// builders, a file that has changed or that has a new name comes with all of
// its names, and a directory that has changed with those that it is in.
func difference(before, after snapshot) []member {
	var l []member
	for _, p := range slices.Sorted(maps.Keys(before.files)) {
		_, there := after.files[p]
		_, parentThere := after.files[parentOf(p)]
		if !there && parentThere {
			l = append(l, whiteout(p))
		}
	}
	changed := make(map[string]bool)
	for p, f := range after.files {
		if same(before, after, p) {
			continue
		}
		for _, name := range after.names[f.stat.Ino] {
			for ; name != ""; name = parentOf(name) {
				changed[name] = true
			}
		}
	}
	for _, p := range slices.Sorted(maps.Keys(changed)) {
		f := after.files[p]
		m := memberOf(f)
		if first := after.names[f.stat.Ino][0]; first != p {
			m = link(p, first, mode(m.Mode), owner(m.UID, m.GID), mtime(m.ModSec, m.ModNsec))
		}
		l = append(l, m)
	}
	return l
}

// same reports whether a path is what it was, names and times of its inode
// included.
func same(before, after snapshot, p string) bool {
	f := after.files[p]
	old, ok := before.files[p]
	return ok && f.stat.Ino == old.stat.Ino && f.stat.Mode == old.stat.Mode && f.stat.Uid == old.stat.Uid && f.stat.Gid == old.stat.Gid &&
		f.stat.Size == old.stat.Size && f.stat.Mtim == old.stat.Mtim && f.content == old.content && f.target == old.target &&
		slices.Equal(after.names[f.stat.Ino], before.names[f.stat.Ino])
}

// memberOf is the entry of a real file that has no other name.
func memberOf(f realFile) member {
	opts := []option{mode(uint32(f.stat.Mode & 0o7777)), owner(f.stat.Uid, f.stat.Gid), mtime(f.stat.Mtim.Sec, uint32(f.stat.Mtim.Nsec))}
	for _, x := range f.xattrs {
		opts = append(opts, xattr(x.Name, x.Value))
	}
	switch f.stat.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return dir(f.path+"/", opts...)
	case unix.S_IFLNK:
		return symlink(f.path, f.target, opts...)
	case unix.S_IFREG:
		// realFiles leaves out the zeros at the end.
		return file(f.path, f.content+strings.Repeat("\x00", int(f.stat.Size)-len(f.content)), opts...)
	case unix.S_IFIFO:
		return fifo(f.path, opts...)
	case unix.S_IFCHR:
		return device(layerindex.TypeChar, f.path, unix.Major(uint64(f.stat.Rdev)), unix.Minor(uint64(f.stat.Rdev)), opts...)
	}
	return device(layerindex.TypeBlock, f.path, unix.Major(uint64(f.stat.Rdev)), unix.Minor(uint64(f.stat.Rdev)), opts...)
}

// copyOut makes a real directory of a tree, through its io/fs file system
// where that has the answer.
func copyOut(t *testing.T, tree *fs.Tree, to string) error {
	fsys := tree.WithContext(t.Context())
	first := make(map[uint64]string)
	var dirs []string
	err := iofs.WalkDir(fsys, ".", func(name string, _ iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		n, err := tree.Lookup("/"+name, false)
		if err != nil {
			return err
		}
		real, a := filepath.Join(to, name), n.Attr()
		if isDir(n) {
			dirs = append(dirs, name)
			return os.Mkdir(real, 0o700)
		}
		if other, ok := first[n.Ino()]; ok {
			return os.Link(other, real)
		}
		first[n.Ino()] = real
		if err := copyFile(fsys, name, real, n, a); err != nil {
			return err
		}
		return describeCopy(real, n, a)
	})
	// Last, as some may be closed and all have times.
	for _, name := range slices.Backward(dirs) {
		n, lookupErr := tree.Lookup("/"+name, false)
		if err == nil {
			err = lookupErr
		}
		if err == nil {
			err = describeCopy(filepath.Join(to, name), n, n.Attr())
		}
	}
	return err
}

func copyFile(fsys iofs.FS, name, real string, n fs.Node, a fs.Attr) error {
	switch a.Mode & syscall.S_IFMT {
	case syscall.S_IFLNK:
		return os.Symlink(n.Target(), real)
	case syscall.S_IFREG:
		content, err := iofs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		return os.WriteFile(real, content, 0o600)
	}
	return testenv.Mknod(real, a.Mode, a.Major, a.Minor)
}

func describeCopy(real string, n fs.Node, a fs.Attr) error {
	if err := os.Lchown(real, int(a.UID), int(a.GID)); err != nil {
		return err
	}
	for _, x := range n.Xattrs() {
		if err := unix.Lsetxattr(real, x.Name, []byte(x.Value), 0); err != nil {
			return err
		}
	}
	if a.Mode&syscall.S_IFMT != syscall.S_IFLNK {
		if err := unix.Chmod(real, a.Mode&0o7777); err != nil {
			return err
		}
	}
	ts := unix.Timespec{Sec: a.ModSec, Nsec: int64(a.ModNsec)}
	return unix.UtimesNanoAt(unix.AT_FDCWD, real, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// openTars opens an image of uncompressed layers.
func openTars(t *testing.T, cacheDir string, layers [][]byte) (tree *fs.Tree, closeTree func(), err error) {
	t.Helper()
	store := sourcetest.NewStore()
	var stack sourcetest.Image
	for _, l := range layers {
		stack.Layers = append(stack.Layers, sourcetest.Layer{Content: l})
	}
	img, err := remote.Open(t.Context(), store.Source("layers", store.AddImage(stack)), "")
	if err != nil {
		return nil, nil, err
	}
	disk, err := cache.Open(cacheDir, nil)
	if err != nil {
		return nil, nil, err
	}
	opened, err := image.New(t.Context(), img, &image.Options{Cache: disk})
	if err != nil {
		disk.Close()
		return nil, nil, err
	}
	return opened.Tree(), func() { opened.Close(); disk.Close() }, nil
}
