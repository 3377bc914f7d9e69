package cache

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestPrune(t *testing.T) {
	const day = 24 * time.Hour
	src := &fakeBlob{t: t, data: randomBytes(8*testChunk, 200)}
	other := &fakeBlob{t: t, data: randomBytes(3*testChunk, 201)}
	old, recent := digest.FromString("old").Encoded(), digest.FromString("recent").Encoded()
	blob, blob2 := "blobs/"+src.Digest().Encoded(), "blobs/"+other.Digest().Encoded()
	tests := []struct {
		name   string
		opts   PruneOptions
		left   []string
		chunks uint64 // of src
		want   PruneResult
	}{
		{"nothing", PruneOptions{To: -1}, []string{blob, blob2, "indexes/" + old, "indexes/" + recent, "meta/" + old, "meta/" + recent, "tmp/1", "tmp/2"}, 0b11111111, PruneResult{}},
		{"all", PruneOptions{All: true, To: -1}, []string{"tmp/1"}, 0, PruneResult{Blobs: 2, Indexes: 2}},
		{"old", PruneOptions{OlderThan: day, To: -1}, []string{blob, "indexes/" + recent, "meta/" + recent, "tmp/1"}, 0b11110000, PruneResult{Blobs: 1, Indexes: 1}},
		{"old, all young", PruneOptions{OlderThan: 100 * day, To: -1}, []string{blob, blob2, "indexes/" + old, "indexes/" + recent, "meta/" + old, "meta/" + recent, "tmp/1"}, 0b11111111, PruneResult{}},
		{"to nothing", PruneOptions{}, []string{"tmp/1"}, 0, PruneResult{Blobs: 2, Indexes: 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			c := openCache(t, dir, &testOptions{Budget: 1 << 30})
			reader := cached(t, openCache(t, dir, nil), src)
			checkRead(t, reader, src, 0, src.Size())
			reader.s.c.dir.Wait() // it marks the blob as verified
			fill(t, c.at("."), src, 0, 4, 3*86400)
			fill(t, c.at("."), src, 4, 4, 3600)
			fill(t, c.at("."), other, 0, 3, 3*86400)
			for _, d := range []string{"indexes", "meta"} {
				addFile(t, dir, d+"/sha256/"+old, 3*day)
				addFile(t, dir, d+"/sha256/"+recent, time.Hour)
			}
			addFile(t, dir, "tmp/2", 0)
			alive, err := createOwned(c.Files())
			if err != nil {
				t.Fatal(err)
			}
			defer alive.Close()
			if err := os.Rename(alive.Name(), filepath.Join(dir, "tmp/1")); err != nil {
				t.Fatal(err)
			}
			tt.want.Before = du(t, dir) + blockSize // for the ledger
			got, err := c.Prune(tt.opts)
			tt.want.After = du(t, dir)
			if err != nil || got != tt.want {
				t.Errorf("Prune() = %+v, %v, want %+v", got, err, tt.want)
			}
			slices.Sort(tt.left)
			if left := files(t, dir); !slices.Equal(left, tt.left) {
				t.Errorf("left are %q, want %q", left, tt.left)
			}
			if got := held(c.at("."), src); got != tt.chunks {
				t.Errorf("left are chunks %b, want %b", got, tt.chunks)
			}
			// Who uses it goes on.
			for range 2 {
				checkRead(t, reader, src, 0, src.Size())
			}
			checkSpaceOf(t, c)
		})
	}
}

// checkSpaceOf checks that the ledger says what du says and what is leased.
func checkSpaceOf(t *testing.T, c *testCache) {
	t.Helper()
	if err := c.budget.locked(func() error { _, err := c.budget.recount(); return err }); err != nil {
		t.Fatal(err)
	}
	if used, ok := knownUse(c.Files()); !ok || used != du(t, c.Path())+c.budget.outstanding() {
		t.Errorf("space says %d, %v; du %d", used, ok, du(t, c.Path()))
	}
}

func TestPruneTo(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	for i := range 5 {
		fill(t, c.at("."), &fakeBlob{t: t, data: randomBytes(40*testChunk, uint64(210+i))}, 0, 40, 1000*(5-i))
	}
	for size := usage(t, c); size > 100_000; size -= 33_333 {
		r, err := c.Prune(PruneOptions{To: size})
		if err != nil {
			t.Fatal(err)
		}
		if got := du(t, dir); r.After != got || got > size || got < size-3*testChunk {
			t.Errorf("pruned to %d: %+v, du says %d", size, r, got)
		}
	}
}

// The record of an image of which nothing is left goes when it is old.
func TestImagesForgotten(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	src := &fakeBlob{t: t, data: randomBytes(testChunk, 220)}
	fill(t, c.at("."), src, 0, 1, 0)
	gone := ImageLayer{digest.FromString("gone"), 1, digest.FromString("tar")}
	c.NoteImage(Image{Name: "gone", Manifest: gone.Digest, Layers: []ImageLayer{gone}})
	c.NoteImage(Image{Name: "here", Manifest: gone.Digest, Layers: []ImageLayer{gone, {src.Digest(), src.Size(), gone.DiffID}}})
	for _, tt := range []struct {
		ago  time.Duration
		want int
	}{{imageTime / 2, 2}, {imageTime * 2, 1}} {
		entries, err := os.ReadDir(filepath.Join(dir, imagesDir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			age(t, filepath.Join(dir, imagesDir, e.Name()), tt.ago)
		}
		inv, err := walk(filesAt(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		(&eviction{inv: inv, blobsOf: blobsOf}).run()
		images, err := c.Images()
		if err != nil || len(images) != tt.want || images[len(images)-1].Name != "here" && tt.want == 1 {
			t.Errorf("after %v: %+v, %v", tt.ago, images, err)
		}
	}
}

func TestHoldings(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	src := &fakeBlob{t: t, data: randomBytes(3*testChunk+10, 230)}
	fill(t, c.at("."), src, 1, 3, 500)
	other := digest.FromString("other")
	addFile(t, dir, "indexes/sha256/"+src.Digest().Encoded(), time.Hour)
	addFile(t, dir, "indexes/sha256/"+other.Encoded(), time.Hour)
	addFile(t, dir, "indexes/sha256/.new-1", 0)
	addFile(t, dir, "blobs/sha256/noise", 0)
	want := []Holding{
		{Digest: src.Digest(), Size: src.Size(), Cached: 2*testChunk + 10, Index: 5000},
		{Digest: other, Index: 5000},
	}
	slices.SortFunc(want, func(a, b Holding) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	got, err := c.Holdings()
	if err != nil || len(got) != len(want) {
		t.Fatalf("Holdings() = %+v, %v", got, err)
	}
	for i, h := range got {
		ago := 500 * time.Second
		if h.Cached == 0 {
			ago = time.Hour
		}
		if d := time.Since(h.Used) - ago; d < -time.Second || d > time.Minute {
			t.Errorf("%s was used %v ago, want %v", h.Digest, time.Since(h.Used), ago)
		}
		h.Used = time.Time{}
		if h != want[i] {
			t.Errorf("got %+v, want %+v", h, want[i])
		}
	}
	if h := c.Holding("../../x"); h.Size != 0 || h.Index != 0 {
		t.Errorf("%+v of no digest", h)
	}
}
