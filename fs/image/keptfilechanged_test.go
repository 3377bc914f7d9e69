package image_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/fs/image/internal/keptfile"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// keep has the content of a file kept and open, and returns where it lies.
func (o *opened) keep(tree *image.Image, name, content string) (path string) {
	o.t.Helper()
	n, err := tree.Tree().Lookup(name, false)
	if err != nil {
		o.t.Fatal(err)
	}
	p := make([]byte, 10)
	if _, err := n.ReadAt(o.t.Context(), p, 0); err != nil {
		o.t.Fatal(err)
	}
	for range 2 {
		tree.KeptFile(n, true)
	}
	image.KeptFiles(tree).Wait()
	if s := tree.Stats().Contents; s.Open == 0 {
		o.t.Fatalf("%+v: it is not kept", s)
	}
	return filepath.Join(o.dir, "contents", "sha256", digest.FromString(content).Encoded())
}

// A content that somebody changes while it is open is neither read nor handed
// out any more, and is made again.
func TestContentsChangeUnderTree(t *testing.T) {
	testenv.Slow(t)
	for _, size := range []int{keptfile.MinSize, keptfile.CheckAtOpen + 1} {
		for name, read := range map[string]bool{"read first": true, "handed out first": false} {
			t.Run(name, func(t *testing.T) {
				big := random(uint64(size), size)
				other := random(1, 1<<20) // takes the other's place in memory
				o := newOpened(t, gzipLayer(t, "big", big, "other", other))
				tree, _ := o.with(forgetful)
				n := lookup(t, tree, "big")
				path := o.keep(tree, "big", big)
				held, ok := tree.KeptFile(n, false)
				if !ok {
					t.Fatal("it is not handed out")
				}
				flip(t, path, int64(size)/2)
				for range 2 {
					if read {
						pass(t, n, big)
					}
					if b, ok := tree.KeptFile(n, false); ok {
						backingHas(t, b, big) // it may have been made again
						b.Close()
					}
					pass(t, n, big)
					image.KeptFiles(tree).Wait()
				}
				held.Close()
				for range 4 {
					pass(t, n, big)
					pass(t, lookup(t, tree, "other"), other)
					image.KeptFiles(tree).Wait()
				}
				b, ok := tree.KeptFile(n, false)
				if !ok {
					t.Fatal("it was not made again")
				}
				backingHas(t, b, big)
				b.Close()
				if s := tree.Stats(); s.Errors != 0 || s.Contents.Kept < 2 {
					t.Errorf("%d errors, %+v", s.Errors, s.Contents)
				}
			})
		}
	}
}

// flip changes a bit of a file that may not be written.
func flip(t *testing.T, path string, off int64) {
	t.Helper()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], off); err != nil {
		t.Fatal(err)
	}
}

// A content whose times somebody changes is checked again, and goes on being
// used.
func TestContentsTouchedUnderTree(t *testing.T) {
	big := random(9, keptfile.CheckAtOpen+1)
	o := newOpened(t, gzipLayer(t, "big", big))
	tree, _ := o.with(forgetful)
	n := lookup(t, tree, "big")
	path := o.keep(tree, "big", big)
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, past, past); err != nil {
		t.Fatal(err)
	}
	if _, ok := tree.KeptFile(n, false); ok {
		t.Error("it was handed out, and may have changed")
	}
	image.KeptFiles(tree).Wait()
	b, ok := tree.KeptFile(n, false)
	if !ok {
		t.Fatal("it was not checked again")
	}
	backingHas(t, b, big)
	b.Close()
	if s := tree.Stats().Contents; s.Kept != 1 {
		t.Errorf("%+v: it was made again", s)
	}
}
