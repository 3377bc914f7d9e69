package cache

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// startRecording begins a recording of src and writes n bytes.
func startRecording(t *testing.T, c *testCache, src *fakeBlob, n int) *Recording {
	t.Helper()
	r, err := c.Record(src)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Abort)
	if _, err := r.Write(src.data[:n]); err != nil {
		t.Fatal(err)
	}
	return r
}

// finish writes the rest of a recording, and reports whether it was kept.
func finish(t *testing.T, r *Recording, src *fakeBlob) bool {
	t.Helper()
	if _, err := r.Write(src.data[r.n:]); err != nil {
		t.Fatal(err)
	}
	if err := r.Commit(chunksOf(src.data, testChunk)); err != nil {
		t.Fatal(err)
	}
	return r.Recorded()
}

func TestRecordBiggerThanBudget(t *testing.T) {
	dir := t.TempDir()
	c := limited(t, dir, 100*testChunk)
	src := &fakeBlob{t: t, data: randomBytes(int(c.Budget()/2)+1, 300)}
	r := startRecording(t, c, src, 10)
	checkTmp(t, dir)
	if finish(t, r, src) {
		t.Error("recorded more than half of the budget")
	}
	checkRead(t, cached(t, c, src), src, 0, src.Size())
}

// Recordings take the room of what was used before them.
func TestRecordEvictsOlder(t *testing.T) {
	dir := t.TempDir()
	c := limited(t, dir, 70*testChunk)
	old := &fakeBlob{t: t, data: randomBytes(40*testChunk, 310)}
	fill(t, c.at("."), old, 0, 40, 1000)
	src := &fakeBlob{t: t, data: randomBytes(35*testChunk, 311)}
	if r := startRecording(t, c, src, 100); !finish(t, r, src) {
		t.Error("not recorded")
	}
	if got := held(c.at("."), old); got == 1<<40-1 {
		t.Error("nothing of the old blob has gone")
	}
	if got := usage(t, c); got > c.Budget() {
		t.Errorf("%d used of %d", got, c.Budget())
	}
}

// Recordings of one image do not remove each other's blobs: what does not fit
// is given up, at once and without an error.
func TestRecordSparesSiblings(t *testing.T) {
	dir := t.TempDir()
	c := limited(t, dir, 70*testChunk)
	srcs := make([]*fakeBlob, 3)
	for i := range srcs {
		srcs[i] = &fakeBlob{t: t, data: randomBytes(30*testChunk, uint64(320+i))}
	}
	c.NoteImage(Image{Name: "one", Manifest: srcs[0].Digest()})
	first := startRecording(t, c, srcs[0], 100)
	second := startRecording(t, c, srcs[1], 100)
	if !finish(t, first, srcs[0]) || !finish(t, second, srcs[1]) {
		t.Fatal("two blobs that fit are not recorded")
	}
	third := startRecording(t, c, srcs[2], 20*testChunk)
	checkTmp(t, dir)
	if finish(t, third, srcs[2]) {
		t.Error("a third was recorded, too")
	}
	if a, b := held(c.at("."), srcs[0]), held(c.at("."), srcs[1]); a != 1<<30-1 || b != 1<<30-1 {
		t.Errorf("left of the first two are %b and %b", a, b)
	}

	// Another image is another matter.
	c.NoteImage(Image{Name: "two", Manifest: srcs[2].Digest()})
	if r := startRecording(t, c, srcs[2], 100); !finish(t, r, srcs[2]) {
		t.Error("the blob of the next image was not recorded")
	}
	if got := usage(t, c); got > c.Budget() {
		t.Errorf("%d used of %d", got, c.Budget())
	}
}

// Of recordings that do not all fit some do.
func TestRecordSideBySide(t *testing.T) {
	dir := t.TempDir()
	c := limited(t, dir, 150*testChunk)
	var recs []*Recording
	var srcs []*fakeBlob
	for i := range 5 {
		src := &fakeBlob{t: t, data: randomBytes(50*testChunk, uint64(330+i))}
		srcs = append(srcs, src)
		recs = append(recs, startRecording(t, c, src, 0))
	}
	for range 49 {
		for i, r := range recs {
			if _, err := r.Write(srcs[i].data[r.n : r.n+testChunk]); err != nil {
				t.Fatal(err)
			}
		}
		if got := usage(t, c); got > c.Budget() {
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
	checkTmp(t, dir)
}

// A chunk that is read all the time is not the one to go.
func TestUseIsNoted(t *testing.T) {
	dir := t.TempDir()
	src := &fakeBlob{t: t, data: randomBytes(4*testChunk, 340)}
	c := openCache(t, dir, nil)
	b := cached(t, c, src)
	checkRead(t, b, src, 0, src.Size())
	file := b.s.file.Load()
	old := stamp() - 2*noteAfter
	for k := range int64(4) {
		file.sound[k].Store(old)
		if err := file.setWord(k, old); err != nil {
			t.Fatal(err)
		}
	}
	checkRead(t, b, src, testChunk, testChunk+1)
	words := file.present(0, 4)
	if words[0] != old || words[1] == old || words[2] == old || words[3] != old {
		t.Errorf("words %v after a read of chunks 1 and 2; they were %d", words, old)
	}
	recent := stamp() - noteAfter/2
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
	src := &fakeBlob{t: t, data: randomBytes(3*testChunk+5, 350)}
	c := openCache(t, t.TempDir(), nil)
	fill(t, c.at("."), src, 1, 1, 0)
	fill(t, c.at("."), src, 3, 1, 0)
	f, err := openBlobFile(c.Files(), c.name(blobsDir, src.Digest()), layout{size: src.Size(), chunk: testChunk}, blobUse)
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
	busy := &fakeBlob{t: t, data: randomBytes(4*testChunk, 360)}
	src := &fakeBlob{t: t, data: randomBytes(4*testChunk, 361)}
	fill(t, c.at("."), busy, 0, 4, 1000)
	fill(t, c.at("."), src, 0, 4, 10)
	noise := filepath.Join(dir, blobsDir, "sha256", strings.Repeat("0", 64))
	if err := os.WriteFile(noise, make([]byte, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	age(t, noise, time.Hour)
	f, err := os.Open(blobPath(dir, busy))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := flock(f, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	inv, err := walk(filesAt(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	e := eviction{inv: inv, want: 1 << 30}
	e.run()
	if held(c.at("."), src) != 0 || exists(noise) {
		t.Error("not all has gone that could")
	}
	f.Close()
	if held(c.at("."), busy) != 0b1111 {
		t.Error("a locked file was changed")
	}
}
