package cache

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/testdata/testenv"
)

func TestEvictsLeastRecentlyUsed(t *testing.T) {
	a := &fakeBlob{t: t, data: randomBytes(8*testChunk, 100)}
	b := &fakeBlob{t: t, data: randomBytes(8*testChunk-5, 101)}
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	fill(t, c.at("."), a, 0, 4, 5000)
	fill(t, c.at("."), a, 4, 4, 100)
	fill(t, c.at("."), b, 0, 4, 3000)
	fill(t, c.at("."), b, 4, 3, 4000)
	// The last chunk is said to be of the future: that is worth nothing.
	fill(t, c.at("."), b, 7, 1, -int(2*futureTime/time.Second))

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
		inv, err := walk(filesAt(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		e := eviction{inv: inv, want: tt.want * testChunk}
		freed := e.run()
		if got := usage(t, c); inv.total-freed != got || freed < e.want {
			t.Errorf("%d of %d bytes freed, %d are left; want %d freed", freed, inv.total, got, e.want)
		}
		if e.blobs != tt.blobs {
			t.Errorf("%d blob files removed, want %d", e.blobs, tt.blobs)
		}
		if gotA, gotB := held(c.at("."), a), held(c.at("."), b); gotA != tt.a || gotB != tt.b {
			t.Fatalf("after %d chunks were to go: %08b %08b, want %08b %08b", tt.want, gotA, gotB, tt.a, tt.b)
		}
	}
}

// What is written evicts what was used least recently, and readers get the
// right bytes of all.
func TestBudgetWhileReading(t *testing.T) {
	const n = 64
	dir := t.TempDir()
	c := limited(t, dir, 100*testChunk)
	var srcs []*fakeBlob
	for i := range 4 {
		src := &fakeBlob{t: t, data: randomBytes(n*testChunk-i, uint64(110+i))}
		srcs = append(srcs, src)
		b := cached(t, c, src)
		for off := int64(0); off < src.Size(); off += 5000 {
			checkRead(t, b, src, off, min(5000, src.Size()-off))
			if got := usage(t, c); got > c.Budget() {
				t.Fatalf("%d bytes used, of %d", got, c.Budget())
			}
		}
	}
	if got := usage(t, c); got < c.Budget()*7/10 {
		t.Errorf("only %d bytes of %d used", got, c.Budget())
	}
	for _, src := range srcs {
		checkRead(t, cached(t, c, src), src, 0, src.Size())
	}
}

func TestIndexesGoLast(t *testing.T) {
	src := &fakeBlob{t: t, data: randomBytes(4*testChunk, 120)}
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
		if err := os.WriteFile(path, make([]byte, 3*testChunk), 0o600); err != nil {
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
	fill(t, c.at("."), src, 0, 4, 0)

	there := func() (got string) {
		if held(c.at("."), src) != 0 {
			got = "chunks "
		}
		for _, f := range []struct{ name, path string }{
			{"idle", idle}, {"inUse", inUse}, {"dead", dead}, {"unborn", unborn}, {"meta", meta}, {"orphan", orphan},
		} {
			if exists(f.path) {
				got += f.name + " "
			}
		}
		return got
	}
	for _, tt := range []struct {
		name string
		e    eviction
		want string
	}{
		{"one byte", eviction{want: 1}, "chunks idle inUse unborn meta "},
		{"a chunk", eviction{want: 4 * testChunk}, "idle inUse unborn meta "},
		{"more", eviction{want: 1 << 30}, "inUse unborn meta "},
		{"above the budget", eviction{want: 1 << 30, must: 1}, "unborn meta "},
		{"for indexes", eviction{want: 1 << 30, rule: rule{indexes: true}}, "unborn "},
	} {
		inv, err := walk(filesAt(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		tt.e.inv = inv
		freed := tt.e.run()
		if left := usage(t, c); inv.total-freed != left {
			t.Errorf("%s: says %d bytes went; there were %d and are %d", tt.name, freed, inv.total, left)
		}
		if got := there(); got != tt.want {
			t.Errorf("%s: left are %q, want %q", tt.name, got, tt.want)
		}
	}
}

// Data without a state word, as a killed process leaves it, is found.
func TestEvictOrphanedData(t *testing.T) {
	src := &fakeBlob{t: t, data: randomBytes(64*testChunk, 130)}
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	fill(t, c.at("."), src, 0, 64, 100)
	path := blobPath(dir, src)
	b := cached(t, c, src)
	checkRead(t, b, src, 0, src.Size())
	damage(t, path, func(f *os.File) error {
		_, err := f.WriteAt(make([]byte, 40*wordSize), layout{size: src.Size(), chunk: testChunk}.word(0))
		return err
	})
	for _, tt := range []struct {
		age  time.Duration
		want int64 // freed at least
	}{{0, 0}, {time.Minute, 40 * testChunk}} {
		if err := os.Chtimes(path, time.Now(), time.Now().Add(-tt.age)); err != nil {
			t.Fatal(err)
		}
		inv, err := walk(filesAt(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		e := eviction{inv: inv}
		if got := e.run(); got < tt.want || tt.want == 0 && got > 0 {
			t.Errorf("%d bytes freed of a file last written %v ago, want %d", got, tt.age, tt.want)
		}
	}
	if got := held(c.at("."), src); got>>40 != 1<<24-1 || got<<24 != 0 {
		t.Errorf("chunks %b are left", got)
	}
	checkRead(t, b, src, 0, src.Size())
}

func TestMakeRoom(t *testing.T) {
	dir := t.TempDir()
	c := limited(t, dir, 100*testChunk)
	src := &fakeBlob{t: t, data: randomBytes(90*testChunk, 170)}
	checkRead(t, cached(t, c, src), src, 0, src.Size())
	for _, tt := range []struct {
		n    int64
		want bool
	}{{-1, false}, {1 << 62, false}, {c.Budget(), false}, {50 * testChunk, true}} {
		if got := c.MakeRoom(tt.n); got != tt.want {
			t.Errorf("MakeRoom(%d) = %v", tt.n, got)
		}
	}
	if free := c.Budget() - usage(t, c); free < 50*testChunk {
		t.Errorf("%d bytes are free", free)
	}
	if !openCache(t, dir, nil).MakeRoom(1 << 40) {
		t.Error("no room without a budget")
	}
}

func budgetOf(t *testing.T, dir string) int64 {
	t.Helper()
	c, err := openTest(dir, &testOptions{Budget: DefaultBudget})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.Budget()
}

func TestDefaultBudget(t *testing.T) {
	dir := smallDisk(t, 64<<20)
	all := testenv.Free(t, filepath.Dir(dir))
	near := func(when string) {
		t.Helper()
		if got := budgetOf(t, dir); got < all/10-1<<20 || got > all/10+1<<20 {
			t.Errorf("%s: %d, want a tenth of %d", when, got, all)
		}
	}
	near("before there is a directory")
	c := openCache(t, dir, &testOptions{Budget: 60 << 20})
	src := &fakeBlob{t: t, data: randomBytes(20<<20, 180)}
	checkRead(t, cached(t, c, src), src, 0, src.Size())
	near("with 20 MiB in it")
	c.Close()
	if err := os.Remove(filepath.Join(dir, ledgerName)); err != nil {
		t.Fatal(err)
	}
	near("with 20 MiB that nobody counted")
	if got := defaultBudget(filesAt(t, "/proc")); got < 0 || got > maxDefaultBudget {
		t.Errorf("%d on a disk without size", got)
	}
}

// A blob file is made only if there is room for it.
func TestOpenBlobNeedsRoom(t *testing.T) {
	dir := t.TempDir()
	c := limited(t, dir, 0)
	src := &fakeBlob{t: t, data: randomBytes(testChunk, 190)}
	l := layout{size: src.Size(), chunk: testChunk}
	for _, tt := range []struct {
		room   int64
		create bool
		want   error
	}{{0, true, errNoFile}, {1 << 20, false, errNoFile}, {1 << 20, true, nil}, {0, false, nil}} {
		c.setBudget(usage(t, c) + tt.room)
		c.budget.full = time.Time{}
		f, err := c.openBlob(src.Digest(), l, tt.create)
		if err != tt.want {
			t.Errorf("%+v: error %v", tt, err)
		}
		if err == nil {
			f.f.Close()
		}
	}
}
