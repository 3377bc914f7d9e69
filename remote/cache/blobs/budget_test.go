package blobs

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/testdata/testenv"
)

func TestEvictsLeastRecentlyUsed(t *testing.T) {
	a := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(8*cachetest.TestChunk, 100)}
	b := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(8*cachetest.TestChunk-5, 101)}
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	cachetest.Fill(t, c.at("."), a, 0, 4, 5000)
	cachetest.Fill(t, c.at("."), a, 4, 4, 100)
	cachetest.Fill(t, c.at("."), b, 0, 4, 3000)
	cachetest.Fill(t, c.at("."), b, 4, 3, 4000)
	// The last chunk is said to be of the future: that is worth nothing.
	cachetest.Fill(t, c.at("."), b, 7, 1, -int(2*directory.FutureTime/time.Second))

	for _, tt := range []struct {
		want  int64 // chunks
		a, b  uint64
		blobs int
	}{
		{1, 0b11111111, 0b01111111, 0},
		{4, 0b11110000, 0b01111111, 0},
		{3, 0b11110000, 0b00001111, 0},
		{2, 0b11110000, 0b00001100, 0},
		{1, 0b11110000, 0b00001000, 0},
		{2, 0b11100000, 0, 1},
		{3, 0, 0, 1},
	} {
		inv, err := directory.Walk(cachetest.FilesAt(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		e := directory.Eviction{Inv: inv, Want: tt.want * cachetest.TestChunk}
		freed := e.Run()
		if got := cachetest.Usage(t, c); inv.Total-freed != got || freed < e.Want {
			t.Errorf("%d of %d bytes freed, %d are left; want %d freed", freed, inv.Total, got, e.Want)
		}
		if e.Blobs != tt.blobs {
			t.Errorf("%d blob files removed, want %d", e.Blobs, tt.blobs)
		}
		if gotA, gotB := cachetest.Held(c.at("."), a), cachetest.Held(c.at("."), b); gotA != tt.a || gotB != tt.b {
			t.Fatalf("after %d chunks were to go: %08b %08b, want %08b %08b", tt.want, gotA, gotB, tt.a, tt.b)
		}
	}
}

// What is written evicts what was used least recently, and readers get the
// right bytes of all.
func TestBudgetWhileReading(t *testing.T) {
	const n = 64
	dir := t.TempDir()
	c := limited(t, dir, 100*cachetest.TestChunk)
	var srcs []*cachetest.FakeBlob
	for i := range 4 {
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(n*cachetest.TestChunk-i, uint64(110+i))}
		srcs = append(srcs, src)
		b := cached(t, c, src)
		for off := int64(0); off < src.Size(); off += 5000 {
			checkRead(t, b, src, off, min(5000, src.Size()-off))
			if got := cachetest.Usage(t, c); got > c.Budget() {
				t.Fatalf("%d bytes used, of %d", got, c.Budget())
			}
		}
	}
	if got := cachetest.Usage(t, c); got < c.Budget()*7/10 {
		t.Errorf("only %d bytes of %d used", got, c.Budget())
	}
	for _, src := range srcs {
		checkRead(t, cached(t, c, src), src, 0, src.Size())
	}
}

func TestIndexesGoLast(t *testing.T) {
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(4*cachetest.TestChunk, 120)}
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	age := func(path string, d time.Duration) string {
		if err := os.Chtimes(path, time.Now(), time.Now().Add(-d)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write := func(name string, d time.Duration) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, 3*cachetest.TestChunk), 0o600); err != nil {
			t.Fatal(err)
		}
		return age(path, d)
	}
	idle := write("indexes/sha256/"+digest.FromString("idle").Encoded(), 48*time.Hour)
	inUse := write("indexes/sha256/"+digest.FromString("in use").Encoded(), time.Hour)
	dead := write("indexes/sha256/.new-1", 2*time.Hour)
	unborn := write("indexes/sha256/.new-2", time.Second)
	meta := write("meta/sha256/"+digest.FromString("meta").Encoded(), time.Second)
	orphan := write("tmp/3", 0)
	cachetest.Fill(t, c.at("."), src, 0, 4, 0)

	there := func() (got string) {
		if cachetest.Held(c.at("."), src) != 0 {
			got = "chunks "
		}
		for _, f := range []struct{ name, path string }{
			{"idle", idle}, {"inUse", inUse}, {"dead", dead}, {"unborn", unborn}, {"meta", meta}, {"orphan", orphan},
		} {
			if cachetest.Exists(f.path) {
				got += f.name + " "
			}
		}
		return got
	}
	for _, tt := range []struct {
		name string
		e    directory.Eviction
		want string
	}{
		{"one byte", directory.Eviction{Want: 1}, "chunks idle inUse unborn meta "},
		{"a chunk", directory.Eviction{Want: 4 * cachetest.TestChunk}, "idle inUse unborn meta "},
		{"more", directory.Eviction{Want: 1 << 30}, "inUse unborn meta "},
		{"above the budget", directory.Eviction{Want: 1 << 30, Must: 1}, "unborn meta "},
		{"for indexes", directory.Eviction{Want: 1 << 30, Rule: directory.Rule{Indexes: true}}, "unborn "},
	} {
		inv, err := directory.Walk(cachetest.FilesAt(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		tt.e.Inv = inv
		freed := tt.e.Run()
		if left := cachetest.Usage(t, c); inv.Total-freed != left {
			t.Errorf("%s: says %d bytes went; there were %d and are %d", tt.name, freed, inv.Total, left)
		}
		if got := there(); got != tt.want {
			t.Errorf("%s: left are %q, want %q", tt.name, got, tt.want)
		}
	}
}

// Data without a state word, as a killed process leaves it, is found.
func TestEvictOrphanedData(t *testing.T) {
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(64*cachetest.TestChunk, 130)}
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	cachetest.Fill(t, c.at("."), src, 0, 64, 100)
	path := cachetest.BlobPath(dir, src)
	b := cached(t, c, src)
	checkRead(t, b, src, 0, src.Size())
	cachetest.Damage(t, path, func(f *os.File) error {
		_, err := f.WriteAt(make([]byte, 40*blobfile.WordSize), blobfile.Layout{Size: src.Size(), Chunk: cachetest.TestChunk}.Word(0))
		return err
	})
	for _, tt := range []struct {
		age  time.Duration
		want int64 // freed at least
	}{{0, 0}, {time.Minute, 40 * cachetest.TestChunk}} {
		if err := os.Chtimes(path, time.Now(), time.Now().Add(-tt.age)); err != nil {
			t.Fatal(err)
		}
		inv, err := directory.Walk(cachetest.FilesAt(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		e := directory.Eviction{Inv: inv}
		if got := e.Run(); got < tt.want || tt.want == 0 && got > 0 {
			t.Errorf("%d bytes freed of a file last written %v ago, want %d", got, tt.age, tt.want)
		}
	}
	if got := cachetest.Held(c.at("."), src); got>>40 != 1<<24-1 || got<<24 != 0 {
		t.Errorf("chunks %b are left", got)
	}
	checkRead(t, b, src, 0, src.Size())
}

func TestMakeRoom(t *testing.T) {
	dir := t.TempDir()
	c := limited(t, dir, 100*cachetest.TestChunk)
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(90*cachetest.TestChunk, 170)}
	checkRead(t, cached(t, c, src), src, 0, src.Size())
	for _, tt := range []struct {
		n    int64
		want bool
	}{{-1, false}, {1 << 62, false}, {c.Budget(), false}, {50 * cachetest.TestChunk, true}} {
		if got := c.MakeRoom(tt.n); got != tt.want {
			t.Errorf("MakeRoom(%d) = %v", tt.n, got)
		}
	}
	if free := c.Budget() - cachetest.Usage(t, c); free < 50*cachetest.TestChunk {
		t.Errorf("%d bytes are free", free)
	}
	if !openCache(t, dir, nil).MakeRoom(1 << 40) {
		t.Error("no room without a budget")
	}
}

func budgetOf(t *testing.T, dir string) int64 {
	t.Helper()
	c, err := openTest(dir, &testOptions{Budget: directory.DefaultBudget})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.Budget()
}

func TestDefaultBudget(t *testing.T) {
	testenv.Slow(t)
	dir := cachetest.SmallDisk(t, 64<<20)
	all := testenv.Free(t, filepath.Dir(dir))
	near := func(when string) {
		t.Helper()
		if got := budgetOf(t, dir); got < all/10-1<<20 || got > all/10+1<<20 {
			t.Errorf("%s: %d, want a tenth of %d", when, got, all)
		}
	}
	near("before there is a directory")
	c := openCache(t, dir, &testOptions{Budget: 60 << 20})
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(20<<20, 180)}
	checkRead(t, cached(t, c, src), src, 0, src.Size())
	near("with 20 MiB in it")
	c.Close()
	if err := os.Remove(filepath.Join(dir, directory.LedgerName)); err != nil {
		t.Fatal(err)
	}
	near("with 20 MiB that nobody counted")
	if got := directory.BudgetFor(cachetest.FilesAt(t, "/proc")); got < 0 || got > directory.MaxDefaultBudget {
		t.Errorf("%d on a disk without size", got)
	}
}

// A blob file is made only if there is room for it.
func TestOpenBlobNeedsRoom(t *testing.T) {
	dir := t.TempDir()
	c := limited(t, dir, 0)
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(cachetest.TestChunk, 190)}
	l := blobfile.Layout{Size: src.Size(), Chunk: cachetest.TestChunk}
	for _, tt := range []struct {
		room   int64
		create bool
		want   error
	}{{0, true, errNoFile}, {1 << 20, false, errNoFile}, {1 << 20, true, nil}, {0, false, nil}} {
		c.SetBudget(cachetest.Usage(t, c) + tt.room)
		c.NoRoom.Forget()
		f, err := c.openBlob(c.Name(directory.Blobs, src.Digest()), l, nil, tt.create)
		if err != tt.want {
			t.Errorf("%+v: error %v", tt, err)
		}
		if err == nil {
			f.f.Close()
		}
	}
}
