package blobs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// readWhole reads a blob from its beginning to its end, n bytes at a time.
func readWhole(ctx context.Context, b remote.Blob, n int64) ([]byte, error) {
	var all []byte
	for off := int64(0); off < b.Size(); {
		p := make([]byte, min(n, b.Size()-off))
		m, err := b.ReadAt(ctx, p, off)
		all = append(all, p[:m]...)
		if off += int64(m); err != nil {
			return all, err
		}
	}
	return all, nil
}

// evenCuts cuts data into cuts of n bytes, from byte off on.
func evenCuts(data []byte, off, n int64) *testCuts {
	var bounds [][2]int64
	for ; off < int64(len(data)); off += n {
		bounds = append(bounds, [2]int64{off, min(off+n, int64(len(data)))})
	}
	return cutsOf(data, bounds...)
}

// A pass over a blob of which some is there brings the rest in few large requests, however
// small its reads are, and skips what is there.
func TestPatched(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	const size, cut = 12 << 20, 40_000
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(size, 540)}
	for _, tt := range []struct {
		name     string
		have     func(k int64) bool
		step     int64
		requests int   // at most
		bytes    int64 // at most, besides what is missing
	}{
		{"nothing", func(int64) bool { return false }, 128 << 10, 4, 0},
		{"every other cut", func(k int64) bool { return k%2 == 0 }, 128 << 10, 4, size},
		{"the first half", func(k int64) bool { return k < size/cut/2 }, 128 << 10, 3, 100},
		{"the second half", func(k int64) bool { return k >= size/cut/2 }, 1000, 3, 100},
		{"all but some", func(k int64) bool { return k%50 != 0 }, 128 << 10, 7, 100},
		{"all", func(int64) bool { return true }, 100_000, 1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cuts := evenCuts(src.Data, 100, cut) // the first 100 bytes are in none
			c := openCache(t, t.TempDir(), nil)
			b, err := c.Blob(plainBlob{src}, cuts)
			if err != nil {
				t.Fatal(err)
			}
			missing := int64(100)
			for k := range cuts.Len() {
				off, end := cuts.Bounds(k)
				if !tt.have(k) {
					missing += end - off
				} else if _, err := b.ReadAt(t.Context(), make([]byte, 1), off); err != nil {
					t.Fatal(err)
				}
			}
			before, fetched := len(src.Asked()), b.Stats().Fetched
			b.src = src // it notes what is asked
			defer func() { b.src = plainBlob{src} }()
			got, err := readWhole(t.Context(), b.Patched(), tt.step)
			if err != nil || !bytes.Equal(got, src.Data) {
				t.Fatalf("read %d bytes, %v", len(got), err)
			}
			asked, came := src.Asked()[before:], int64(0)
			for _, a := range asked {
				came += a.End - a.Off
			}
			if len(asked) > tt.requests || came < missing || came > missing+tt.bytes {
				t.Errorf("asked for %d bytes in %d requests: %v; %d are missing", came, len(asked), asked, missing)
			}
			if n := b.Stats().Fetched - fetched; n != came {
				t.Errorf("counted %d bytes of %d", n, came)
			}
		})
	}
}

// A pass gives the right bytes whatever is there, by reads of any size, one after the
// other or some at a time, also when what is on disk has been damaged.
func TestPatchedAny(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 9))
		src := plainBlob{&cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(1_000_000, 560+seed)}}
		cuts := randomCuts(r, src.Data, seed%3 != 0)
		dir := t.TempDir()
		c := openCache(t, dir, &testOptions{MaxRequest: 100_000})
		b, err := c.Blob(src, cuts)
		if err != nil {
			t.Fatal(err)
		}
		for range 1 + r.IntN(20) {
			b.ReadAt(t.Context(), make([]byte, 1+r.IntN(20_000)), r.Int64N(src.Size()))
		}
		if seed%2 == 1 {
			cachetest.Damage(t, c.at(b.s.fileName()), cachetest.FlipAt(r.Int64N(src.Size())))
		}
		got, err := readWhole(t.Context(), b.Patched(), 1+r.Int64N(200_000))
		if err != nil || !bytes.Equal(got, src.Data) {
			t.Errorf("seed %d: read %d bytes, %v", seed, len(got), err)
		}
		s := remote.NewStream(t.Context(), b.Patched(), &remote.StreamOptions{RangeSize: 1 + r.IntN(300_000)})
		got, err = io.ReadAll(s)
		s.Close()
		if err != nil || !bytes.Equal(got, src.Data) {
			t.Errorf("seed %d: streamed %d bytes, %v", seed, len(got), err)
		}
	}
}

// A source that fails, or ends early, is an error after the bytes before it; a pass
// that is asked again goes on.
func TestPatchedFails(t *testing.T) {
	t.Parallel()
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(100_000, 570)}
	broken := errors.New("broken")
	src.Answer = func(_ context.Context, i int, p []byte) (int, error) {
		switch i {
		case 0:
			return 300, broken
		case 1:
			return 10, io.EOF
		}
		return len(p), nil
	}
	b, err := openCache(t, t.TempDir(), nil).Blob(src, evenCuts(src.Data, 0, 10_000))
	if err != nil {
		t.Fatal(err)
	}
	x := b.Patched()
	p := make([]byte, 1000)
	n, err := x.ReadAt(t.Context(), p, 0)
	if n != 300 || !errors.Is(err, broken) || !bytes.Equal(p[:n], src.Data[:n]) {
		t.Errorf("ReadAt() = %d, %v", n, err)
	}
	if n, err := x.ReadAt(t.Context(), p, 300); n != 10 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("ReadAt() = %d, %v", n, err)
	}
	if n, err := x.ReadAt(t.Context(), p, 99_500); n != 500 || err != io.EOF || !bytes.Equal(p[:n], src.Data[99_500:]) {
		t.Errorf("ReadAt() = %d, %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := x.ReadAt(ctx, p, 0); n != 0 || err != context.Canceled {
		t.Errorf("ReadAt() = %d, %v", n, err)
	}
}

// Of a source that sends the blob whole a pass is one answer.
func TestPatchedWhole(t *testing.T) {
	t.Parallel()
	src := newWholeSource(t, 580)
	b, err := openCache(t, t.TempDir(), nil).Blob(src, evenCuts(src.data, 5, 10_000))
	if err != nil {
		t.Fatal(err)
	}
	s := remote.NewStream(t.Context(), b.Patched(), nil)
	defer s.Close()
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, src.data) || len(src.starts) != 1 || src.alone != 0 {
		t.Errorf("streamed %d bytes, %v; %d answers, %d reads besides", len(got), err, len(src.starts), src.alone)
	}
	if got, err := readWhole(t.Context(), b.Patched(), 10_000); err != nil || !bytes.Equal(got, src.data) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}

// What is condemned is read by nobody any more, from memory or disk, and not by the next
// process; a pass then takes all from the source. Other cuts are none the worse for it.
func TestCondemn(t *testing.T) {
	t.Parallel()
	for name, cuts := range map[string]func(data []byte) Cuts{
		"chunks": func(data []byte) Cuts { return chunksOf(data, cachetest.TestChunk) },
		"cuts":   func(data []byte) Cuts { return evenCuts(data, 0, 9_000) },
	} {
		t.Run(name, func(t *testing.T) {
			src := plainBlob{&cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(100_000, 590)}}
			dir, liar := t.TempDir(), errors.New("the index of example.com lies")
			c := openCache(t, dir, nil)
			condemned := cuts(src.Data)
			b, err := c.Blob(src, condemned)
			if err != nil {
				t.Fatal(err)
			}
			local, err := c.Blob(localFake{src}, condemned)
			if err != nil {
				t.Fatal(err)
			}
			other, err := c.Blob(src, evenCuts(src.Data, 1, 20_000))
			if err != nil {
				t.Fatal(err)
			}
			checkRead(t, b, src.FakeBlob, 0, 50_000)
			b.Condemn(liar)
			again, err := c.Blob(src, condemned)
			if err != nil {
				t.Fatal(err)
			}
			for name, b := range map[string]*Blob{"b": b, "local": local, "again": again} {
				n, err := b.ReadAt(t.Context(), make([]byte, 10), 7)
				if n != 0 || !errors.Is(err, liar) || !errors.Is(b.Refuted(), liar) {
					t.Errorf("%s: ReadAt() = %d, %v; Refuted() = %v", name, n, err, b.Refuted())
				}
				if n, err := b.ReadPresent(t.Context(), make([]byte, 10), 7); n != 0 || err == nil {
					t.Errorf("%s: ReadPresent() = %d, %v", name, n, err)
				}
			}
			checkRead(t, other, src.FakeBlob, 1, 50_000)
			if got, err := readWhole(t.Context(), b.Patched(), 10_000); err != nil || !bytes.Equal(got, src.Data) {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
			if c.CheckCuts(src.Digest(), src.Size(), condemned) == nil {
				t.Error("CheckCuts() = nil")
			}
			if cachetest.Exists(c.at(b.s.fileName())) {
				t.Error("the file is still there")
			}
			// An index made here does not let them be believed again.
			c.SetVerifiedWhole(src.Digest(), Chunks{Size: 65536, Sums: make([]byte, 2*sha256.Size)})
			next := openCache(t, dir, nil)
			if b, err = next.Blob(src, condemned); err != nil {
				t.Fatal(err)
			}
			if name == "chunks" {
				return // there is one mark for all chunks of one size
			}
			if n, err := b.ReadAt(t.Context(), make([]byte, 10), 7); n != 0 || !errors.Is(err, remote.ErrDigest) {
				t.Errorf("in the next process: ReadAt() = %d, %v", n, err)
			}
		})
	}
}
