package blobs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/remote/cache/meta"
)

// startRecording begins a recording of src and writes n bytes.
func startRecording(t *testing.T, c *testCache, src *cachetest.FakeBlob, n int) *Recording {
	t.Helper()
	r, err := c.Record(src)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Abort)
	if _, err := r.Write(src.Data[:n]); err != nil {
		t.Fatal(err)
	}
	return r
}

// finish writes the rest of a recording, and reports whether it was kept.
func finish(t *testing.T, r *Recording, src *cachetest.FakeBlob) bool {
	t.Helper()
	if _, err := r.Write(src.Data[r.n:]); err != nil {
		t.Fatal(err)
	}
	if err := r.Commit(chunksOf(src.Data, cachetest.TestChunk)); err != nil {
		t.Fatal(err)
	}
	return r.Recorded()
}

func TestRecordBiggerThanBudget(t *testing.T) {
	dir := t.TempDir()
	c := limited(t, dir, 100*cachetest.TestChunk)
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(int(c.Budget()/2)+1, 300)}
	r := startRecording(t, c, src, 10)
	cachetest.CheckTmp(t, dir)
	if finish(t, r, src) {
		t.Error("recorded more than half of the budget")
	}
	checkRead(t, cached(t, c, src), src, 0, src.Size())
}

// Recordings take the room of what was used before them.
func TestRecordEvictsOlder(t *testing.T) {
	dir := t.TempDir()
	c := limited(t, dir, 70*cachetest.TestChunk)
	old := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(40*cachetest.TestChunk, 310)}
	cachetest.Fill(t, c.at("."), old, 0, 40, 1000)
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(35*cachetest.TestChunk, 311)}
	if r := startRecording(t, c, src, 100); !finish(t, r, src) {
		t.Error("not recorded")
	}
	if got := cachetest.Held(c.at("."), old); got == 1<<40-1 {
		t.Error("nothing of the old blob has gone")
	}
	if got := cachetest.Usage(t, c); got > c.Budget() {
		t.Errorf("%d used of %d", got, c.Budget())
	}
}

// Recordings of one image do not remove each other's blobs: what does not fit
// is given up, at once and without an error.
func TestRecordSparesSiblings(t *testing.T) {
	dir := t.TempDir()
	c := limited(t, dir, 70*cachetest.TestChunk)
	srcs := make([]*cachetest.FakeBlob, 3)
	for i := range srcs {
		srcs[i] = &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(30*cachetest.TestChunk, uint64(320+i))}
	}
	c.NoteImage(meta.Image{Name: "one", Manifest: srcs[0].Digest()})
	first := startRecording(t, c, srcs[0], 100)
	second := startRecording(t, c, srcs[1], 100)
	if !finish(t, first, srcs[0]) || !finish(t, second, srcs[1]) {
		t.Fatal("two blobs that fit are not recorded")
	}
	third := startRecording(t, c, srcs[2], 20*cachetest.TestChunk)
	cachetest.CheckTmp(t, dir)
	if finish(t, third, srcs[2]) {
		t.Error("a third was recorded, too")
	}
	if a, b := cachetest.Held(c.at("."), srcs[0]), cachetest.Held(c.at("."), srcs[1]); a != 1<<30-1 || b != 1<<30-1 {
		t.Errorf("left of the first two are %b and %b", a, b)
	}

	// Another image is another matter.
	c.NoteImage(meta.Image{Name: "two", Manifest: srcs[2].Digest()})
	if r := startRecording(t, c, srcs[2], 100); !finish(t, r, srcs[2]) {
		t.Error("the blob of the next image was not recorded")
	}
	if got := cachetest.Usage(t, c); got > c.Budget() {
		t.Errorf("%d used of %d", got, c.Budget())
	}
}

// Of recordings that do not all fit some do.
func TestRecordSideBySide(t *testing.T) {
	dir := t.TempDir()
	c := limited(t, dir, 150*cachetest.TestChunk)
	var recs []*Recording
	var srcs []*cachetest.FakeBlob
	for i := range 5 {
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(50*cachetest.TestChunk, uint64(330+i))}
		srcs = append(srcs, src)
		recs = append(recs, startRecording(t, c, src, 0))
	}
	for range 49 {
		for i, r := range recs {
			if _, err := r.Write(srcs[i].Data[r.n : r.n+cachetest.TestChunk]); err != nil {
				t.Fatal(err)
			}
		}
		if got := cachetest.Usage(t, c); got > c.Budget() {
			t.Fatalf("%d used of %d", got, c.Budget())
		}
	}
	kept := 0
	for i, r := range recs {
		if finish(t, r, srcs[i]) {
			kept++
		}
	}
	if kept < 2 {
		t.Errorf("%d of 5 recordings kept, of which 2 fit", kept)
	}
	cachetest.CheckTmp(t, dir)
}

// A chunk that is read all the time is not the one to go.
func TestUseIsNoted(t *testing.T) {
	dir := t.TempDir()
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(4*cachetest.TestChunk, 340)}
	c := openCache(t, dir, nil)
	b := cached(t, c, src)
	checkRead(t, b, src, 0, src.Size())
	file := b.s.file.Load()
	old := blobfile.Stamp() - 2*noteAfter
	for k := range int64(4) {
		file.sound[k].Store(old)
		if err := file.setWord(k, old); err != nil {
			t.Fatal(err)
		}
	}
	checkRead(t, b, src, cachetest.TestChunk, cachetest.TestChunk+1)
	words := file.present(0, 4)
	if words[0] != old || words[1] == old || words[2] == old || words[3] != old {
		t.Errorf("words %v after a read of chunks 1 and 2; they were %d", words, old)
	}
	recent := blobfile.Stamp() - noteAfter/2
	file.sound[0].Store(recent)
	if err := file.setWord(0, recent); err != nil {
		t.Fatal(err)
	}
	checkRead(t, b, src, 0, 1)
	if got := file.present(0, 1)[0]; got != recent {
		t.Errorf("word %d after a use %d s later", got, noteAfter/2)
	}
}

func TestHollow(t *testing.T) {
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(3*cachetest.TestChunk+5, 350)}
	c := openCache(t, t.TempDir(), nil)
	cachetest.Fill(t, c.at("."), src, 1, 1, 0)
	cachetest.Fill(t, c.at("."), src, 3, 1, 0)
	f, err := openBlobFile(c.Files(), c.Name(directory.Blobs, src.Digest()), blobfile.Layout{Size: src.Size(), Chunk: cachetest.TestChunk}, nil, blobUse)
	if err != nil {
		t.Fatal(err)
	}
	defer f.f.Close()
	for k, want := range []bool{true, false, true, false} {
		if got := f.hollow(int64(k)); got != want {
			t.Errorf("chunk %d: hollow is %v", k, got)
		}
	}
}

// Blob files that are somebody's at the moment, or of no use, do not keep
// eviction from others.
func TestEvictPassesOver(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	busy := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(4*cachetest.TestChunk, 360)}
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(4*cachetest.TestChunk, 361)}
	cachetest.Fill(t, c.at("."), busy, 0, 4, 1000)
	cachetest.Fill(t, c.at("."), src, 0, 4, 10)
	noise := filepath.Join(dir, directory.Blobs, "sha256", strings.Repeat("0", 64))
	if err := os.WriteFile(noise, make([]byte, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	cachetest.Age(t, noise, time.Hour)
	f, err := os.Open(cachetest.BlobPath(dir, busy))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := directory.Flock(f, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	inv, err := directory.Walk(cachetest.FilesAt(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	e := directory.Eviction{Inv: inv, Want: 1 << 30}
	e.Run()
	if cachetest.Held(c.at("."), src) != 0 || cachetest.Exists(noise) {
		t.Error("not all has gone that could")
	}
	f.Close()
	if cachetest.Held(c.at("."), busy) != 0b1111 {
		t.Error("a locked file was changed")
	}
}
