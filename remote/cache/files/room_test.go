package files

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/iotest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

// tryContent stores a content if there is room, and reports whether there was.
func tryContent(t *testing.T, c *testCache, data []byte) bool {
	t.Helper()
	x, err := c.Store(t.Context(), digest.FromBytes(data), int64(len(data)), bytes.NewReader(data))
	if errors.Is(err, directory.ErrFull) {
		return false
	}
	checkContent(t, x, err, data).Close()
	return true
}

// lookAgain makes a Cache look at the disk as if some time had passed.
func lookAgain(c *testCache) {
	c.known.share.counted = time.Time{}
	c.known.share.full.Forget()
}

// contentsTake returns what contents take on disk.
func contentsTake(t *testing.T, dir string) int64 {
	t.Helper()
	path := filepath.Join(dir, directory.Kept)
	if !cachetest.Exists(path) {
		return 0
	}
	return cachetest.Du(t, path)
}

func TestContentBiggerThanQuarter(t *testing.T) {
	c := limited(t, t.TempDir(), 1<<20)
	size := c.Budget()/4 + 1
	_, err := c.Store(t.Context(), digest.FromString("x"), size, iotest.ErrReader(errors.New("was read")))
	if !errors.Is(err, directory.ErrFull) {
		t.Errorf("Store() = %v", err)
	}
	if !tryContent(t, c, cachetest.RandomBytes(int(size)-1, 470)) {
		t.Error("a quarter is not stored")
	}
}

// Contents take at most half of the budget. The first to come stay, until they
// were not used for long; then those used least recently go, but not what is
// open.
func TestContentsTakeHalf(t *testing.T) {
	const n, size = 30, 10 * blobfile.BlockSize
	dir := t.TempDir()
	c := limited(t, dir, 400*blobfile.BlockSize)
	half := c.Budget() / 2
	var all [n][]byte
	stored := 0
	for i := range all {
		all[i] = cachetest.RandomBytes(size-i, uint64(480+i))
		if tryContent(t, c, all[i]) {
			stored++
		}
		if got := contentsTake(t, dir); got > half {
			t.Fatalf("contents take %d, half of the budget is %d", got, half)
		}
	}
	if stored < 18 || stored == n {
		t.Fatalf("%d of %d contents stored in %d bytes", stored, n, half)
	}
	for i := range all {
		if cachetest.Exists(contentPath(dir, all[i])) != (i < stored) {
			t.Errorf("content %d: there is %v; want the first %d", i, i >= stored, stored)
		}
	}

	// The later ones are older now; the oldest of them are open.
	for i := range stored {
		cachetest.Age(t, contentPath(dir, all[i]), 2*directory.KeptIdle+time.Duration(i)*time.Minute)
	}
	open := []*Kept{openAsIs(t, c, all[stored-1]), openAsIs(t, c, all[stored-2])}
	c.known.share.counted = time.Now().Add(time.Hour)
	if tryContent(t, c, all[n-1]) {
		t.Error("the disk was looked at again at once")
	}
	lookAgain(c)
	if !tryContent(t, c, all[n-1]) {
		t.Fatal("idle contents made no room")
	}
	if got := contentsTake(t, dir); got > half {
		t.Errorf("contents take %d, half of the budget is %d", got, half)
	}
	gone := 0
	for i := stored - 3; i >= 0 && !cachetest.Exists(contentPath(dir, all[i])); i-- {
		gone++
	}
	for i := range stored {
		if want := i < stored-2-gone || i >= stored-2; cachetest.Exists(contentPath(dir, all[i])) != want {
			t.Errorf("content %d: there is %v; %d went of %d, the last two are open", i, !want, gone, stored)
		}
	}
	if gone == 0 || gone > 3 {
		t.Errorf("%d contents went for one", gone)
	}
	for i, x := range open {
		checkContent(t, x, nil, all[stored-1-i])
	}
}

// openAsIs opens a content without noting its use.
func openAsIs(t *testing.T, c *testCache, data []byte) *Kept {
	t.Helper()
	x, id, err := c.lock(digest.FromBytes(data))
	if err == nil {
		x.known = c.known.knows(x.digest, id)
	}
	return checkContent(t, x, err, data)
}

// A content takes the room of idle chunks and contents, and of nothing else.
func TestContentTakesIdleRoom(t *testing.T) {
	for _, tt := range []struct {
		name string
		age  int // of the chunks, seconds
		want bool
	}{{"in use", 1800, false}, {"idle", 7200, true}} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			c := limited(t, dir, 104*cachetest.TestChunk)
			src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(50*cachetest.TestChunk, 520)}
			cachetest.Fill(t, c.at("."), src, 0, 50, tt.age)
			for _, name := range []string{"indexes", "meta"} {
				for i := range 10 {
					cachetest.AddFile(t, dir, name+"/sha256/"+digest.FromBytes([]byte{byte(i)}).Encoded(), 100*24*time.Hour)
				}
			}
			before := len(cachetest.Files(t, dir))
			data := cachetest.RandomBytes(20*blobfile.BlockSize, 521)
			if got := tryContent(t, c, data); got != tt.want {
				t.Errorf("stored is %v", got)
			}
			if got := cachetest.Usage(t, c); got > c.Budget() {
				t.Errorf("%d used of %d", got, c.Budget())
			}
			if all := cachetest.Held(c.at("."), src) == 1<<50-1; all == tt.want {
				t.Errorf("chunks %b are left", cachetest.Held(c.at("."), src))
			}
			want := before
			if tt.want {
				want++
			}
			if got := cachetest.Files(t, dir); len(got) != want {
				t.Errorf("left are %d files of %d: %q", len(got), before, got)
			}
			cachetest.CheckTmp(t, dir)
			if tt.want {
				return
			}
			if !c.known.share.full.Within(directory.FullTime) {
				t.Error("the next one is going to try at once")
			}
			// Others are not told that there is no room.
			other := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(2*cachetest.TestChunk, 522)}
			if checkRead(t, cached(t, c, other), other, 0, other.Size()); cachetest.Held(c.at("."), other) != 0b11 {
				t.Error("a chunk found no room where a content found none")
			}
		})
	}
}

// Contents go in the order of their last use among chunks.
func TestEvictsContents(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(2*cachetest.TestChunk, 530)}
	cachetest.Fill(t, c.at("."), src, 0, 1, 3000)
	cachetest.Fill(t, c.at("."), src, 1, 1, 1000)
	names := []string{"oldest", "open", "middle", "youngest", "of the future"}
	data := map[string][]byte{}
	for i, name := range names {
		data[name] = cachetest.RandomBytes(cachetest.TestChunk-i, uint64(531+i))
		storeContent(t, c, data[name]).Close()
	}
	x := openContent(t, c, data["open"])
	for name, ago := range map[string]int{"oldest": 4000, "open": 5000, "middle": 2000, "youngest": 500, "of the future": -10_000} {
		cachetest.Age(t, contentPath(dir, data[name]), time.Duration(ago)*time.Second)
	}
	left := func() (left []string) {
		for _, name := range names {
			if cachetest.Exists(contentPath(dir, data[name])) {
				left = append(left, name)
			}
		}
		return left
	}
	for i, want := range []struct {
		contents []string
		chunks   uint64
		counted  int
	}{
		{[]string{"oldest", "open", "middle", "youngest"}, 0b11, 1},
		{[]string{"open", "middle", "youngest"}, 0b11, 1},
		{[]string{"open", "middle", "youngest"}, 0b10, 0},
		{[]string{"open", "youngest"}, 0b10, 1},
		{[]string{"open", "youngest"}, 0, 0},
		{[]string{"open"}, 0, 1},
		{[]string{"open"}, 0, 0},
	} {
		inv, err := directory.Walk(cachetest.FilesAt(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		e := directory.Eviction{Inv: inv, Want: 1, Rule: directory.Rule{Copies: true}}
		freed := e.Run()
		if got := left(); !slices.Equal(got, want.contents) || cachetest.Held(c.at("."), src) != want.chunks || e.Contents != want.counted {
			t.Fatalf("step %d: left are %q and chunks %b, want %q and %b; %d counted", i, got, cachetest.Held(c.at("."), src), want.contents, want.chunks, e.Contents)
		}
		if got := cachetest.Usage(t, c); inv.Total-freed != got {
			t.Errorf("step %d: says %d bytes went; there were %d and are %d", i, freed, inv.Total, got)
		}
	}
	checkContent(t, x, nil, data["open"])
}

// Chunks that are read take the room of contents.
func TestChunksEvictContents(t *testing.T) {
	dir := t.TempDir()
	c := limited(t, dir, 300*cachetest.TestChunk)
	for i := range 12 {
		data := cachetest.RandomBytes(10*cachetest.TestChunk, uint64(540+i))
		if !tryContent(t, c, data) {
			t.Fatalf("content %d is not stored", i)
		}
		cachetest.Age(t, contentPath(dir, data), time.Minute)
	}
	for i := range 4 {
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(60*cachetest.TestChunk, uint64(560+i))}
		checkRead(t, cached(t, c, src), src, 0, src.Size())
		if cachetest.Held(c.at("."), src) != 1<<60-1 {
			t.Errorf("chunks %b of blob %d are kept", cachetest.Held(c.at("."), src), i)
		}
		if got := cachetest.Usage(t, c); got > c.Budget() {
			t.Fatalf("%d used of %d", got, c.Budget())
		}
	}
}

// A budget that is full while a content is being written: nothing is left.
func TestContentFindsNoRoom(t *testing.T) {
	dir := t.TempDir()
	c := limited(t, dir, 1<<20)
	c.SetBudget(cachetest.Usage(t, c) + 100*blobfile.BlockSize)
	data := cachetest.RandomBytes(25*blobfile.BlockSize, 570)
	used := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(90*cachetest.TestChunk, 571)}
	r := io.MultiReader(bytes.NewReader(data[:blobfile.BlockSize]), cachetest.ReaderFunc(func([]byte) (int, error) {
		// Others take what is left.
		cachetest.Fill(t, c.at("."), used, 0, 90, 0)
		if err := os.Remove(filepath.Join(dir, directory.LedgerName)); err != nil {
			t.Error(err)
		}
		return 0, io.EOF
	}), bytes.NewReader(data[blobfile.BlockSize:]))
	if _, err := c.Store(t.Context(), digest.FromBytes(data), int64(len(data)), r); !errors.Is(err, directory.ErrFull) {
		t.Errorf("Store() = %v", err)
	}
	cachetest.CheckTmp(t, dir)
	if contentsTake(t, dir) > 0 || c.known.share.coming != 0 {
		t.Errorf("contents take %d, and %d are coming", contentsTake(t, dir), c.known.share.coming)
	}
}

func TestPruneContents(t *testing.T) {
	const day = 24 * time.Hour
	for _, tt := range []struct {
		name string
		opts directory.PruneOptions
		left []string
	}{
		{"nothing", directory.PruneOptions{To: -1}, []string{"old", "recent", "open"}},
		{"all", directory.PruneOptions{All: true, To: -1}, []string{"open"}},
		{"old", directory.PruneOptions{OlderThan: day, To: -1}, []string{"recent", "open"}},
		{"to", directory.PruneOptions{To: 80_000}, []string{"recent", "open"}},
		{"to nothing", directory.PruneOptions{}, []string{"open"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			c := openCache(t, dir, nil)
			names := []string{"old", "recent", "open"}
			data := map[string][]byte{}
			for i, name := range names {
				data[name] = cachetest.RandomBytes(4*blobfile.BlockSize, uint64(580+i))
				storeContent(t, c, data[name]).Close()
			}
			x := openContent(t, openCache(t, dir, nil), data["open"])
			for name, ago := range map[string]time.Duration{"old": 2 * day, "recent": time.Hour, "open": 3 * day} {
				cachetest.Age(t, contentPath(dir, data[name]), ago)
			}
			got, err := c.Prune(tt.opts)
			if err != nil || got.Contents != len(names)-len(tt.left) || got.After != cachetest.Du(t, dir) {
				t.Errorf("Prune() = %+v, %v; du says %d", got, err, cachetest.Du(t, dir))
			}
			for _, name := range names {
				if cachetest.Exists(contentPath(dir, data[name])) != slices.Contains(tt.left, name) {
					t.Errorf("%s: want left %q", name, tt.left)
				}
			}
			checkContent(t, x, nil, data["open"])
		})
	}
}
