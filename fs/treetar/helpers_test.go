package treetar

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/internal/layertest"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/build"
	"github.com/opencontainers/go-digest"
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

// dumpOf is the text of a tree.
func dumpOf(t testing.TB, tree *fs.Tree) string {
	t.Helper()
	var b bytes.Buffer
	if err := tree.Dump(t.Context(), &b, true); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// tarOf writes paths of a tree.
func tarOf(t testing.TB, tree *fs.Tree, paths ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(t.Context(), &b, tree, paths, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
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

func writeFile(t testing.TB, path string, content []byte) string {
	t.Helper()
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
