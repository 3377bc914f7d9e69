//go:build linux

package treecopy

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/internal/layertest"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/build"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// memory is the stream of a layer that is a plain tar.
type memory struct{ tar []byte }

func (m memory) ReadFileAt(_ context.Context, p []byte, off, _ int64) (int, error) {
	return bytes.NewReader(m.tar).ReadAt(p, off)
}

// treeOf merges layers, the base first.
func treeOf(t testing.TB, tars ...[]byte) *fs.Tree {
	t.Helper()
	var layers []fs.Layer
	for _, b := range tars {
		d := digest.FromBytes(b)
		x, err := build.Index(t.Context(), layerindex.Layer{Digest: d, Size: int64(len(b)), DiffID: d}, bytes.NewReader(b), nil)
		if err != nil {
			t.Fatal(err)
		}
		entries, err := x.Entries()
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, fs.Layer{Name: d.String(), Entries: entries, Content: fs.StreamContent(memory{b})})
	}
	tree, err := fs.Merge(t.Context(), layers)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// membersTree is a tree of one layer.
func membersTree(t testing.TB, members ...layertest.Member) *fs.Tree {
	t.Helper()
	return treeOf(t, layertest.TarOf(members))
}

var errRead = errors.New("the layer is broken")

// brokenTree is a tree whose second file cannot be read.
func brokenTree(t testing.TB) *fs.Tree {
	t.Helper()
	b := layertest.TarOf([]layertest.Member{layertest.File("a", "first"), layertest.File("b", "second"), layertest.File("c", "third")})
	at := int64(bytes.Index(b, []byte("second")))
	d := digest.FromBytes(b)
	x, err := build.Index(t.Context(), layerindex.Layer{Digest: d, Size: int64(len(b)), DiffID: d}, bytes.NewReader(b), nil)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := x.Entries()
	if err != nil {
		t.Fatal(err)
	}
	tree, err := fs.Merge(t.Context(), []fs.Layer{{Name: "broken", Entries: entries, Content: fs.StreamContent(broken{memory{b}, at})}})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

type broken struct {
	memory
	at int64
}

func (b broken) ReadFileAt(ctx context.Context, p []byte, off, end int64) (int, error) {
	if off == b.at {
		return 0, errRead
	}
	return b.memory.ReadFileAt(ctx, p, off, end)
}

// A copyTest copies into a new directory.
type copyTest struct {
	*testing.T
	dir    *os.File
	path   string
	failed []string // what Options.Failed was told
}

func newCopyTest(t *testing.T) *copyTest {
	t.Helper()
	c := &copyTest{T: t, path: t.TempDir()}
	c.open()
	return c
}

// open opens the directory.
func (c *copyTest) open() {
	c.Helper()
	dir, err := os.Open(c.path)
	if err != nil {
		c.Fatal(err)
	}
	c.dir = dir
	c.Cleanup(func() { dir.Close() })
}

// copy copies a path of a tree to a name and returns the error.
func (c *copyTest) copy(tree *fs.Tree, from, name string, opts Options) error {
	c.Helper()
	n, err := tree.Lookup(from, false)
	if err != nil {
		c.Fatal(err)
	}
	opts.Failed = func(err error) { c.failed = append(c.failed, strings.ReplaceAll(err.Error(), c.path, "DEST")) }
	return New(&opts).Copy(c.Context(), tree, from, n, c.dir, name)
}

// want fails the test unless a file has a content.
func (c *copyTest) want(name, content string) {
	c.Helper()
	got, err := os.ReadFile(filepath.Join(c.path, name))
	if err != nil || string(got) != content {
		c.Errorf("%s: got %q, error %v; want %q", name, got, err, content)
	}
}

// names are the names in the directory.
func (c *copyTest) names() string {
	c.Helper()
	entries, err := os.ReadDir(c.path)
	if err != nil {
		c.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// stat is lstat of a file in the directory.
func (c *copyTest) stat(name string) (st unix.Stat_t) {
	c.Helper()
	if err := unix.Lstat(filepath.Join(c.path, name), &st); err != nil {
		c.Fatalf("%s: %v", name, err)
	}
	return st
}

func (c *copyTest) needRoot() {
	c.Helper()
	if os.Geteuid() != 0 {
		c.Skip("only root can do this")
	}
}

// everything keeps all that cp -a keeps.
var everything = Options{Attributes: true, Xattrs: true, HardLinks: true, Devices: true}
