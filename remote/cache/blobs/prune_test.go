package blobs

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/remote/cache/meta"
)

func TestPrune(t *testing.T) {
	const day = 24 * time.Hour
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(8*cachetest.TestChunk, 200)}
	other := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(3*cachetest.TestChunk, 201)}
	old, recent := digest.FromString("old").Encoded(), digest.FromString("recent").Encoded()
	blob, blob2 := "blobs/"+src.Digest().Encoded(), "blobs/"+other.Digest().Encoded()
	tests := []struct {
		name   string
		opts   directory.PruneOptions
		left   []string
		chunks uint64 // of src
		want   directory.PruneResult
	}{
		{"nothing", directory.PruneOptions{To: -1}, []string{blob, blob2, "indexes/" + old, "indexes/" + recent, "meta/" + old, "meta/" + recent, "tmp/1", "tmp/2"}, 0b11111111, directory.PruneResult{}},
		{"all", directory.PruneOptions{All: true, To: -1}, []string{"tmp/1"}, 0, directory.PruneResult{Blobs: 2, Indexes: 2}},
		{"old", directory.PruneOptions{OlderThan: day, To: -1}, []string{blob, "indexes/" + recent, "meta/" + recent, "tmp/1"}, 0b11110000, directory.PruneResult{Blobs: 1, Indexes: 1}},
		{"old, all young", directory.PruneOptions{OlderThan: 100 * day, To: -1}, []string{blob, blob2, "indexes/" + old, "indexes/" + recent, "meta/" + old, "meta/" + recent, "tmp/1"}, 0b11111111, directory.PruneResult{}},
		{"to nothing", directory.PruneOptions{}, []string{"tmp/1"}, 0, directory.PruneResult{Blobs: 2, Indexes: 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			c := openCache(t, dir, &testOptions{Budget: 1 << 30})
			reader := cached(t, openCache(t, dir, nil), src)
			checkRead(t, reader, src, 0, src.Size())
			reader.s.c.dir.Wait() // it marks the blob as verified
			cachetest.Fill(t, c.at("."), src, 0, 4, 3*86400)
			cachetest.Fill(t, c.at("."), src, 4, 4, 3600)
			cachetest.Fill(t, c.at("."), other, 0, 3, 3*86400)
			for _, d := range []string{"indexes", "meta"} {
				cachetest.AddFile(t, dir, d+"/sha256/"+old, 3*day)
				cachetest.AddFile(t, dir, d+"/sha256/"+recent, time.Hour)
			}
			cachetest.AddFile(t, dir, "tmp/2", 0)
			alive, err := directory.CreateOwned(c.Files())
			if err != nil {
				t.Fatal(err)
			}
			defer alive.Close()
			if err := os.Rename(alive.Name(), filepath.Join(dir, "tmp/1")); err != nil {
				t.Fatal(err)
			}
			tt.want.Before = cachetest.Du(t, dir) + blobfile.BlockSize // for the ledger
			got, err := c.Prune(tt.opts)
			tt.want.After = cachetest.Du(t, dir)
			if err != nil || got != tt.want {
				t.Errorf("Prune() = %+v, %v, want %+v", got, err, tt.want)
			}
			slices.Sort(tt.left)
			if left := cachetest.Files(t, dir); !slices.Equal(left, tt.left) {
				t.Errorf("left are %q, want %q", left, tt.left)
			}
			if got := cachetest.Held(c.at("."), src); got != tt.chunks {
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
	if err := c.Room.Locked(func() error { _, err := c.Room.Recount(); return err }); err != nil {
		t.Fatal(err)
	}
	if used, ok := directory.KnownUse(c.Files()); !ok || used != cachetest.Du(t, c.Path())+c.Room.Outstanding() {
		t.Errorf("space says %d, %v; du %d", used, ok, cachetest.Du(t, c.Path()))
	}
}

func TestPruneTo(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	for i := range 5 {
		cachetest.Fill(t, c.at("."), &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(40*cachetest.TestChunk, uint64(210+i))}, 0, 40, 1000*(5-i))
	}
	for size := cachetest.Usage(t, c); size > 100_000; size -= 33_333 {
		r, err := c.Prune(directory.PruneOptions{To: size})
		if err != nil {
			t.Fatal(err)
		}
		if got := cachetest.Du(t, dir); r.After != got || got > size || got < size-3*cachetest.TestChunk {
			t.Errorf("pruned to %d: %+v, du says %d", size, r, got)
		}
	}
}

// The record of an image of which nothing is left goes when it is old.
func TestImagesForgotten(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(cachetest.TestChunk, 220)}
	cachetest.Fill(t, c.at("."), src, 0, 1, 0)
	gone := meta.ImageLayer{Digest: digest.FromString("gone"), Size: 1, DiffID: digest.FromString("tar")}
	c.NoteImage(meta.Image{Name: "gone", Manifest: gone.Digest, Layers: []meta.ImageLayer{gone}})
	c.NoteImage(meta.Image{Name: "here", Manifest: gone.Digest, Layers: []meta.ImageLayer{gone, {Digest: src.Digest(), Size: src.Size(), DiffID: gone.DiffID}}})
	for _, tt := range []struct {
		ago  time.Duration
		want int
	}{{directory.ImageTime / 2, 2}, {directory.ImageTime * 2, 1}} {
		entries, err := os.ReadDir(filepath.Join(dir, directory.Images))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			cachetest.Age(t, filepath.Join(dir, directory.Images, e.Name()), tt.ago)
		}
		inv, err := directory.Walk(cachetest.FilesAt(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		(&directory.Eviction{Inv: inv, BlobsOf: meta.BlobsOf}).Run()
		images, err := c.Images()
		if err != nil || len(images) != tt.want || images[len(images)-1].Name != "here" && tt.want == 1 {
			t.Errorf("after %v: %+v, %v", tt.ago, images, err)
		}
	}
}

func TestHoldings(t *testing.T) {
	dir := t.TempDir()
	c := openCache(t, dir, nil)
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(3*cachetest.TestChunk+10, 230)}
	cachetest.Fill(t, c.at("."), src, 1, 3, 500)
	other := digest.FromString("other")
	cachetest.AddFile(t, dir, "indexes/sha256/"+src.Digest().Encoded(), time.Hour)
	cachetest.AddFile(t, dir, "indexes/sha256/"+other.Encoded(), time.Hour)
	cachetest.AddFile(t, dir, "indexes/sha256/.new-1", 0)
	cachetest.AddFile(t, dir, "blobs/sha256/noise", 0)
	want := []Holding{
		{Digest: src.Digest(), Size: src.Size(), Cached: 2*cachetest.TestChunk + 10, Index: 5000},
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
		if !reflect.DeepEqual(h, want[i]) {
			t.Errorf("got %+v, want %+v", h, want[i])
		}
	}
	if h := c.Holding("../../x"); h.Size != 0 || h.Index != 0 {
		t.Errorf("%+v of no digest", h)
	}
}
