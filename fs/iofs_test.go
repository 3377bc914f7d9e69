package fs_test

import (
	"context"
	"errors"
	"io"
	iofs "io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/layerindex"
)

func TestFS(t *testing.T) {
	tree := merge(t,
		layer(dir("etc/"), file("etc/passwd", "root"), file("etc/gone", ""), dir("usr/bin/", mode(0o1755)), file("usr/bin/sh", "#!", mode(0o4755)),
			symlink("bin", "usr/bin"), symlink("usr/up", "../etc/passwd"), symlink("abs", "/usr/./bin/../up")),
		layer(whiteout("etc/gone"), link("usr/hard", "etc/passwd"), file("empty", ""), dir("none/"),
			sparse("sparse", 5000, "xy", []layerindex.Extent{{Off: 4096, Size: 2}})),
	)
	err := fstest.TestFS(tree.WithContext(t.Context()), "etc/passwd", "usr/bin/sh", "usr/hard", "empty", "none", "sparse", "bin", "abs")
	if err != nil {
		t.Error(err)
	}
}

func lookupTree(t *testing.T) *fs.Tree {
	return merge(t, layer(
		dir("d/"), dir("d/e/"), file("d/f", "1"), file("d/e/\xff", "2"),
		symlink("rel", "d/e"), symlink("abs", "/d/f"), symlink("up", "../../../d"), symlink("slash", "d/"), symlink("fslash", "d/f/"),
		symlink("loop", "loop"), symlink("gone", "no/such"), symlink("d/e/back", ".."), symlink("two", "rel"), symlink("dot", "."),
	), symlinkChain(40), layer(symlink("s40", "s41"), dir("s41/")))
}

func TestLookup(t *testing.T) {
	tree := lookupTree(t)
	for _, c := range []struct {
		path     string
		follow   string // the path of the inode, or an error
		noFollow string
	}{
		{"", "", ""},
		{"/", "", ""},
		{".", "", ""},
		{"..", "", ""},
		{"/../../d/./e/..//e", "d/e", "d/e"},
		{"d/f", "d/f", "d/f"},
		{"d/f/", "ENOTDIR", "ENOTDIR"},
		{"d/f/.", "ENOTDIR", "ENOTDIR"},
		{"d/f/..", "ENOTDIR", "ENOTDIR"},
		{"d/f/x", "ENOTDIR", "ENOTDIR"},
		{"d/no", "ENOENT", "ENOENT"},
		{"d/no/..", "ENOENT", "ENOENT"},
		{"d/e/\xff", "d/e/\xff", "d/e/\xff"},
		{"rel", "d/e", "rel"},
		{"rel/", "d/e", "d/e"},
		{"rel/.", "d/e", "d/e"},
		{"rel/..", "d", "d"},
		{"two/back/f", "d/f", "d/f"},
		{"two", "d/e", "two"},
		{"two/back", "d", "d/e/back"},
		{"abs", "d/f", "abs"},
		{"abs/", "ENOTDIR", "ENOTDIR"},
		{"up/f", "d/f", "d/f"},
		{"slash", "d", "slash"},
		{"slash/f", "d/f", "d/f"},
		{"fslash", "ENOTDIR", "fslash"},
		{"loop", "ELOOP", "loop"},
		{"loop/x", "ELOOP", "ELOOP"},
		{"gone", "ENOENT", "gone"},
		{"dot/dot/dot/d/f", "d/f", "d/f"},
		{"s01", "s41", "s01"},
		{"s00", "ELOOP", "s00"},
		{"s00/x", "ELOOP", "ELOOP"},
	} {
		for follow, want := range map[bool]string{true: c.follow, false: c.noFollow} {
			n, err := tree.Lookup(c.path, follow)
			if errno := errnoOf(want); errno != 0 {
				var pe *iofs.PathError
				if !errors.Is(err, errno) || !errors.As(err, &pe) || pe.Path != c.path {
					t.Errorf("Lookup(%q, %v): got %v, want %v", c.path, follow, err, errno)
				}
				if errors.Is(err, iofs.ErrNotExist) != (errno == syscall.ENOENT) {
					t.Errorf("Lookup(%q, %v): %v and fs.ErrNotExist", c.path, follow, err)
				}
				continue
			}
			if got := pathOf(tree, n); err != nil || got != want {
				t.Errorf("Lookup(%q, %v): got %q, %v, want %q", c.path, follow, got, err, want)
			}
		}
	}
}

func errnoOf(s string) syscall.Errno {
	return map[string]syscall.Errno{"ENOENT": syscall.ENOENT, "ENOTDIR": syscall.ENOTDIR, "ELOOP": syscall.ELOOP}[s]
}

// pathOf finds the first path of a node the slow way.
func pathOf(tree *fs.Tree, n fs.Node) (found string) {
	if n == (fs.Node{}) || n == tree.Root() {
		return ""
	}
	pathsOf(tree.Root(), "", func(path string, other fs.Node) {
		if other == n && found == "" {
			found = path
		}
	})
	return found
}

func TestNodeOfOtherTypes(t *testing.T) {
	tree := merge(t, layer(file("f", "x"), symlink("l", "f"), dir("d/")))
	f, _ := tree.Lookup("f", false)
	if _, ok := f.Child("x"); ok || f.NumChildren() != 0 || f.Target() != "" || f.Parent() != tree.Root() {
		t.Errorf("file: %d children, target %q, parent %d", f.NumChildren(), f.Target(), f.Parent().Ino())
	}
	d, _ := tree.Lookup("d", false)
	if got := d.Attr().Size; got != 4096 {
		t.Errorf("directory: size %d, want 4096", got)
	}
	l, _ := tree.Lookup("l", false)
	if got := l.Attr().Size; got != 1 {
		t.Errorf("symlink to f: size %d, want 1", got)
	}
	for name := range tree.Root().Children() {
		if name != "d" {
			t.Errorf("first child is %q, want d", name)
		}
		break
	}
}

func TestFSErrors(t *testing.T) {
	fsys := lookupTree(t).WithContext(t.Context())
	for _, c := range []struct {
		name string
		want error
	}{
		{"no", iofs.ErrNotExist},
		{"gone", iofs.ErrNotExist},
		{"d/f/x", syscall.ENOTDIR},
		{"loop", syscall.ELOOP},
		{"", iofs.ErrInvalid},
		{"/d", iofs.ErrInvalid},
		{"d/", iofs.ErrInvalid},
		{"d/../d", iofs.ErrInvalid},
		{"d//f", iofs.ErrInvalid},
		{"d\x00", iofs.ErrInvalid},
	} {
		for op, f := range map[string]func(string) error{
			"Open":     func(name string) error { _, err := fsys.Open(name); return err },
			"Stat":     func(name string) error { _, err := iofs.Stat(fsys, name); return err },
			"ReadDir":  func(name string) error { _, err := iofs.ReadDir(fsys, name); return err },
			"ReadFile": func(name string) error { _, err := iofs.ReadFile(fsys, name); return err },
		} {
			var pe *iofs.PathError
			if err := f(c.name); !errors.Is(err, c.want) || !errors.As(err, &pe) || pe.Path != c.name {
				t.Errorf("%s(%q): got %v, want %v", op, c.name, err, c.want)
			}
		}
	}
	if _, err := iofs.ReadLink(fsys, "d/f"); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("ReadLink of a file: got %v, want EINVAL", err)
	}
	if _, err := iofs.ReadLink(fsys, "no"); !errors.Is(err, iofs.ErrNotExist) {
		t.Errorf("ReadLink of nothing: got %v", err)
	}
	if _, err := iofs.Lstat(fsys, "gone"); err != nil {
		t.Errorf("Lstat of a dangling symlink: %v", err)
	}
	if _, err := iofs.ReadDir(fsys, "d/f"); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("ReadDir of a file: got %v, want ENOTDIR", err)
	}
	if _, err := iofs.ReadFile(fsys, "d"); !errors.Is(err, syscall.EISDIR) {
		t.Errorf("ReadFile of a directory: got %v, want EISDIR", err)
	}
	if got, err := iofs.ReadFile(fsys, "d/e/\xff"); err != nil || string(got) != "2" {
		t.Errorf("ReadFile of a name that is not UTF-8: got %q, %v", got, err)
	}
}

func TestFSInfo(t *testing.T) {
	fsys := merge(t, layer(
		file("f", "12", mode(0o6640), owner(5, 6), mtime(-3, 7)), dir("d/", mode(0o1777)), symlink("l", "f"), fifo("p"),
		device(layerindex.TypeChar, "c", 1, 3), device(layerindex.TypeBlock, "b", 8, 0),
	)).WithContext(t.Context())
	for name, want := range map[string]iofs.FileMode{
		"f": iofs.ModeSetuid | iofs.ModeSetgid | 0o640,
		"d": iofs.ModeDir | iofs.ModeSticky | 0o777,
		"l": iofs.ModeSymlink | 0o777,
		"p": iofs.ModeNamedPipe | 0o644,
		"c": iofs.ModeDevice | iofs.ModeCharDevice | 0o644,
		"b": iofs.ModeDevice | 0o644,
		".": iofs.ModeDir | 0o755,
	} {
		info, err := iofs.Lstat(fsys, name)
		if err != nil || info.Mode() != want || info.Name() != name || info.IsDir() != want.IsDir() {
			t.Errorf("Lstat(%q): got %v, %v, want mode %v", name, info, err, want)
		}
	}
	info, err := iofs.Stat(fsys, "l")
	if err != nil {
		t.Fatal(err)
	}
	want := fs.Attr{Mode: syscall.S_IFREG | 0o6640, UID: 5, GID: 6, Nlink: 1, Size: 2, ModSec: -3, ModNsec: 7}
	if got := info.Sys(); got != want {
		t.Errorf("Sys: got %+v, want %+v", got, want)
	}
	if got := info.ModTime(); !got.Equal(time.Unix(-3, 7)) {
		t.Errorf("ModTime: got %v", got)
	}
	f, err := fsys.Open("p")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Read(make([]byte, 1)); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("reading a fifo: got %v, want EINVAL", err)
	}
}

func TestFSFile(t *testing.T) {
	fsys := merge(t, layer(file("f", "0123456789"), file("d/a", ""), file("d/b", ""), file("d/c", ""))).WithContext(t.Context())
	f, err := fsys.Open("f")
	if err != nil {
		t.Fatal(err)
	}
	s := f.(io.ReadSeeker)
	for _, c := range []struct {
		off    int64
		whence int
		at     int64 // or an error
	}{
		{3, io.SeekStart, 3}, {2, io.SeekCurrent, 6}, {-1, io.SeekEnd, 9}, {5, io.SeekEnd, 15},
		{-1, io.SeekStart, -1}, {0, 7, -1}, {-99, io.SeekEnd, -1},
	} {
		at, err := s.Seek(c.off, c.whence)
		if c.at < 0 {
			if !errors.Is(err, syscall.EINVAL) {
				t.Errorf("Seek(%d, %d): got %d, %v, want EINVAL", c.off, c.whence, at, err)
			}
			continue
		}
		if at != c.at || err != nil {
			t.Errorf("Seek(%d, %d): got %d, %v, want %d", c.off, c.whence, at, err, c.at)
		}
		// One byte, after which SeekCurrent is one more than the seek.
		p := make([]byte, 1)
		if n, err := s.Read(p); c.at < 10 && (n != 1 || p[0] != byte('0'+c.at)) || c.at >= 10 && err != io.EOF {
			t.Errorf("Read at %d: got %q, %v", c.at, p[:n], err)
		}
	}
	d, err := fsys.Open("d")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Read(nil); !errors.Is(err, syscall.EISDIR) {
		t.Errorf("Read of a directory: got %v, want EISDIR", err)
	}
	var names []string
	for {
		list, err := d.(iofs.ReadDirFile).ReadDir(2)
		for _, e := range list {
			names = append(names, e.Name())
		}
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"a", "b", "c"}; !slices.Equal(names, want) {
		t.Errorf("ReadDir by two: got %q, want %q", names, want)
	}
}

func TestFSContext(t *testing.T) {
	tree := merge(t, layer(file("f", "x")))
	ctx, cancel := context.WithCancel(t.Context())
	fsys := tree.WithContext(ctx)
	cancel()
	var pe *iofs.PathError
	if _, err := iofs.ReadFile(fsys, "f"); !errors.Is(err, context.Canceled) || !errors.As(err, &pe) {
		t.Errorf("ReadFile with an ended context: got %v", err)
	}
	if _, err := iofs.ReadFile(tree.WithContext(t.Context()), "f"); err != nil {
		t.Errorf("ReadFile with another context: %v", err)
	}
}

// TestReadFileHoles: a tar header can claim a file of exabytes.
func TestReadFileHoles(t *testing.T) {
	fsys := merge(t, layer(sparse("big", 1<<62, "", []layerindex.Extent{}), sparse("small", 1<<20, "", []layerindex.Extent{}))).WithContext(t.Context())
	if _, err := iofs.ReadFile(fsys, "big"); !errors.Is(err, syscall.EFBIG) {
		t.Errorf("big: got %v, want EFBIG", err)
	}
	if got, err := iofs.ReadFile(fsys, "small"); err != nil || strings.Trim(string(got), "\x00") != "" || len(got) != 1<<20 {
		t.Errorf("small: got %d bytes, %v", len(got), err)
	}
}

// TestContentEnds: a layer that ends before a file does must not look like
// the end of the file.
func TestContentEnds(t *testing.T) {
	for _, content := range []fs.Content{fs.StreamContent(memContent("short")), nil} {
		layers := layersOf(layer(file("f", "some content")))
		layers[0].Content = content
		tree, err := fs.Merge(t.Context(), layers)
		if err != nil {
			t.Fatal(err)
		}
		got, err := iofs.ReadFile(tree.WithContext(t.Context()), "f")
		if err == nil || !strings.Contains(err.Error(), "layer L1: ") || content != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("content %q: got %q, %v", content, got, err)
		}
	}
}

func TestDump(t *testing.T) {
	tree := merge(t, layer(
		file("a/b", "abc", mode(0o4755), owner(1, 2), mtime(-1, 5), xattr("user.a", "\x00\xff"), xattr("user.b", "")),
		link("a-c", "a/b", mode(0o4755), owner(1, 2), mtime(-1, 5)), symlink("a\nb", "x\ty"), device(layerindex.TypeBlock, "dev", 8, 1), fifo("p", mtime(0, 1)),
		device(layerindex.TypeChar, "old", 0, 0, mtime(-99999999999, 0)),
	))
	const want = "/\td\t755\t0:0\t0\t0\t0:0\t-\t-\t\t-\n" +
		"/a\td\t755\t0:0\t0\t0\t0:0\t-\t-\t\t-\n" +
		`/a\nb` + "\tl\t777\t0:0\t3\t100000000000\t0:0\t-\t" + `x\ty` + "\t\t-\n" +
		"/a-c\tf\t4755\t1:2\t3\t-999999995\t0:0\t/a-c\t-\tuser.a=00ff,user.b=\tba7816bf8f01cfea\n" +
		"/a/b\tf\t4755\t1:2\t3\t-999999995\t0:0\t/a-c\t-\tuser.a=00ff,user.b=\tba7816bf8f01cfea\n" +
		"/dev\tb\t644\t0:0\t0\t100000000000\t8:1\t-\t-\t\t-\n" +
		"/old\tc\t644\t0:0\t0\t-99999999999000000000\t0:0\t-\t-\t\t-\n" +
		"/p\tp\t644\t0:0\t0\t1\t0:0\t-\t-\t\t-\n"
	if got := dump(t, tree); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
