package treediff

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/internal/layertest"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/build"
	"github.com/opencontainers/go-digest"
)

// A layer is one whose reads are counted and can fail.
type layer struct {
	fs.Content
	reads, digests atomic.Int64
	// noDigests says that the layer knows no digests; of sparse files none does.
	noDigests bool
	// read, if not nil, comes before each read. Its error is that of the read.
	read func(ctx context.Context, off int64) error
}

func (l *layer) ReadFileAt(ctx context.Context, n fs.Node, p []byte, off int64) (int, error) {
	l.reads.Add(1)
	if l.read != nil {
		if err := l.read(ctx, off); err != nil {
			return 0, err
		}
	}
	return l.Content.ReadFileAt(ctx, n, p, off)
}

func (l *layer) ReadHeldAt(fs.Node, []byte, int64) bool { return false }

func (l *layer) FileDigest(n fs.Node) (digest.Digest, bool, error) {
	l.digests.Add(1)
	if l.noDigests || n.IsSparse() {
		return "", false, nil
	}
	p := make([]byte, n.Attr().Size)
	if _, err := l.Content.ReadFileAt(context.Background(), n, p, 0); err != nil {
		return "", false, err
	}
	return digest.FromBytes(p), true, nil
}

type memory []byte

func (m memory) ReadFileAt(_ context.Context, p []byte, off, _ int64) (int, error) {
	return bytes.NewReader(m).ReadAt(p, off)
}

// treeOf returns a tree of one layer, which has the name of its digest.
func treeOf(t testing.TB, members ...layertest.Member) (*fs.Tree, *layer) {
	t.Helper()
	b := layertest.TarOf(members)
	d := digest.FromBytes(b)
	x, err := build.Index(t.Context(), layerindex.Layer{Digest: d, Size: int64(len(b)), DiffID: d}, bytes.NewReader(b), nil)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := x.Entries()
	if err != nil {
		t.Fatal(err)
	}
	content := &layer{Content: fs.StreamContent(memory(b))}
	tree, err := fs.Merge(t.Context(), []fs.Layer{{Name: d.String(), Entries: entries, Content: content}})
	if err != nil {
		t.Fatal(err)
	}
	return tree, content
}

// two returns the trees of two lists of members, whose layers are never the same.
func two(t testing.TB, a, b []layertest.Member) (x, y *fs.Tree, contents [2]*layer) {
	t.Helper()
	x, contents[0] = treeOf(t, append(slices.Clone(a), layertest.File(".side", "a"))...)
	y, contents[1] = treeOf(t, append(slices.Clone(b), layertest.File(".side", "b"))...)
	return x, y, contents
}

// textOf writes what Compare tells of two roots, without .side: "~ path what".
func textOf(ctx context.Context, a, b *fs.Tree, opts *Options) string {
	var all []string
	for c, err := range Compare(ctx, a.Root(), b.Root(), opts) {
		if c.Path == ".side" {
			continue
		}
		all = append(all, text(c, err))
	}
	return strings.Join(all, "\n")
}

func text(c Change, err error) string {
	s := strings.TrimSpace(fmt.Sprintf("%c %s %s", map[Kind]rune{Added: '+', Removed: '-', Changed: '~'}[c.Kind], c.Path, c.What))
	if err != nil {
		s += " !" + err.Error()
	}
	return s
}

// want compares two lists of members and the text of their difference.
func want(t *testing.T, a, b []layertest.Member, opts *Options, lines ...string) {
	t.Helper()
	x, y, contents := two(t, a, b)
	for _, reading := range []bool{false, true} {
		contents[0].noDigests, contents[1].noDigests = reading, reading
		if got := textOf(t.Context(), x, y, opts); got != strings.Join(lines, "\n") {
			t.Errorf("without digests: %t: got\n%s\nwant\n%s", reading, got, strings.Join(lines, "\n"))
		}
		if got := textOf(t.Context(), x, x, opts); got != "" {
			t.Errorf("the first differs from itself in\n%s", got)
		}
	}
}

var errRead = errors.New("the layer is broken")

// refusing is content whose files at some offsets cannot be read.
type refusing struct {
	fs.Content
	broken map[int64]bool
}

func (r refusing) ReadFileAt(ctx context.Context, n fs.Node, p []byte, off int64) (int, error) {
	if _, at, _ := n.Provenance(); r.broken[at] {
		return 0, errRead
	}
	return r.Content.ReadFileAt(ctx, n, p, off)
}
