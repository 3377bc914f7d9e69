package image_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/build"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/cache/blobs"
	"github.com/imgfs/imgfs/remote/cache/meta"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// forge puts an index and a blob file into a cache that say that a layer has
// other files.
func forge(t *testing.T, o *opened, honest sourcetest.Layer, files ...string) {
	t.Helper()
	layer := gzipLayer(t, files...)
	blob := append(layer.Content, make([]byte, len(honest.Content)-len(layer.Content))...)
	disk, err := cache.Open(o.dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	d := digest.FromBytes(honest.Content)
	x, err := build.Index(t.Context(), layerindex.Layer{Digest: digest.FromBytes(blob), Size: int64(len(blob)), DiffID: layer.DiffID}, bytes.NewReader(blob), nil)
	if err != nil {
		t.Fatal(err)
	}
	sums, err := x.ChunkSums()
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if _, err := x.WriteTo(&file); err != nil {
		t.Fatal(err)
	}
	b := file.Bytes()
	for at, d := range map[int]digest.Digest{24: d, 56: honest.DiffID} {
		if _, err := hex.Decode(b[at:at+32], []byte(d.Encoded())); err != nil {
			t.Fatal(err)
		}
	}
	f := &indexFile{t: t, path: filepath.Join(o.dir, "indexes", "sha256", d.Encoded())}
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.path, f.seal(b), 0o600); err != nil {
		t.Fatal(err)
	}
	rec, err := disk.Blobs.Record(claimedBlob{d, int64(len(blob))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rec.Write(blob); err != nil {
		t.Fatal(err)
	}
	if err := rec.Commit(blobs.Chunks{Size: x.ChunkSize(), Sums: sums}); err != nil {
		t.Fatal(err)
	}
}

// A claimedBlob is what somebody says of a blob.
type claimedBlob struct {
	digest digest.Digest
	size   int64
}

func (b claimedBlob) Digest() digest.Digest { return b.digest }
func (b claimedBlob) Size() int64           { return b.size }

func (b claimedBlob) ReadAt(context.Context, []byte, int64) (int, error) {
	return 0, errors.New("there is none")
}

// eventually reads a file until it has what is wanted.
func eventually(t *testing.T, tree *image.Image, name string, done func(got []byte, err error) bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		got, err := iofs.ReadFile(tree.FS(t.Context()), name)
		if done(got, err) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: still %q, %v", name, got[:min(len(got), 50)], err)
		}
		time.Sleep(time.Millisecond)
	}
}

// A forged index with chunks that fit it is found out when all of the blob has
// been there. Then nothing more is read by it, and the next tree is right.
func TestForgedIndex(t *testing.T) {
	for _, before := range []bool{false, true} {
		t.Run(fmt.Sprint("opened before ", before), func(t *testing.T) {
			honest := gzipLayer(t, "os-release", "NAME=honest", "more", text(300_000))
			o := newOpened(t, honest)
			if before { // and so the whole blob was checked, but not by these chunks
				mustOpen(t, o).Close()
			}
			checkForgedIndex(t, o, honest)
		})
	}
}

func checkForgedIndex(t *testing.T, o *opened, honest sourcetest.Layer) {
	forge(t, o, honest, "os-release", "NAME=forged", "evil", "evil")
	tree := mustOpen(t, o)
	if v := tree.Stats().Layers[0].Verified; v != meta.VerifiedByChunk {
		t.Errorf("at first verified: %v", v)
	}
	eventually(t, tree, "os-release", func(got []byte, err error) bool { return errors.Is(err, image.ErrReopen) })
	for range 2 {
		if got, err := iofs.ReadFile(tree.FS(t.Context()), "evil"); !errors.Is(err, image.ErrReopen) {
			t.Errorf("read %q, %v of a tree that is another image's", got, err)
		}
	}
	if v := tree.Stats().Layers[0].Verified; v != meta.VerifiedWrong {
		t.Errorf("verified: %v", v)
	}
	if n, err := tree.Tree().Lookup("evil", false); err == nil {
		if d, ok, err := n.ContentDigest(); err == nil {
			t.Errorf("ContentDigest() = %s, %v", d, ok)
		}
	}
	again := mustOpen(t, o)
	o.has(again, "os-release", "NAME=honest")
	if _, err := again.Tree().Lookup("evil", false); err == nil {
		t.Error("the next tree has the forged file")
	}
	if v := again.Stats().Layers[0].Verified; v != meta.VerifiedWhole {
		t.Errorf("then verified: %v", v)
	}
}

// An index whose chunks are known not to be the blob is not used to open it.
func TestRefutedIndexIsMadeAgain(t *testing.T) {
	honest := gzipLayer(t, "a", "honest", "more", text(300_000))
	o := newOpened(t, honest)
	forge(t, o, honest, "a", "forged")
	f := o.indexFile(t, honest)
	_, off, size := f.section(sectionChunks)
	mark := fmt.Sprintf("wrong 2026-01-31T12:00:00Z %x\n", sha256.Sum256(f.good[off:off+size]))
	path := filepath.Join(o.dir, "verified", "sha256", digest.FromBytes(honest.Content).Encoded())
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(mark), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		o.has(mustOpen(t, o), "a", "honest")
	}
	if len(o.warns) != 1 {
		t.Errorf("warned of %q", o.warns)
	}
}

// A source that is wrong does not have an index made again that is right: of one
// that this process made nothing is fetched, and of another once.
func TestSourceWrongIndexRight(t *testing.T) {
	testenv.Slow(t)
	big := text(6 << 20)
	layer := gzipLayer(t, "big", big)
	size := int64(len(layer.Content))
	bad := slices.Clone(layer.Content)
	bad[len(bad)/2] ^= 1
	read := func(o *opened, tree *image.Image) error {
		_, err := iofs.ReadFile(tree.FS(o.t.Context()), "big")
		return err
	}
	for _, built := range []bool{true, false} {
		t.Run(fmt.Sprint("built ", built), func(t *testing.T) {
			o := newOpened(t, layer)
			if !built {
				mustOpen(t, o).Close()
			}
			tree := mustOpen(t, o)
			f := o.indexFile(t, layer)
			if err := os.RemoveAll(filepath.Join(o.dir, "blobs")); err != nil {
				t.Fatal(err)
			}
			o.store.Replace(digest.FromBytes(layer.Content), bad)
			before := o.src.read.Load()
			for range 3 {
				if err := read(o, tree); !errors.Is(err, remote.ErrDigest) {
					t.Errorf("from a source that is wrong: %v", err)
				}
				image.PassMendPause(tree)
			}
			// What is before the wrong chunk once, and then that one, each time
			// twice, with what is brought ahead.
			most := size + size*3/4
			if !built {
				most += size
			}
			if got := o.src.read.Load() - before; got > most {
				t.Errorf("fetched %d bytes, want at most %d of a blob of %d", got, most, size)
			}
			o.store.Replace(digest.FromBytes(layer.Content), layer.Content)
			if err := read(o, tree); err != nil {
				t.Errorf("when the source is right: %v", err)
			}
			if now, err := os.ReadFile(f.path); err != nil || !bytes.Equal(now, f.good) {
				t.Errorf("the index has changed: %v", err)
			}
		})
	}
}
