package reader

import (
	"math/rand/v2"
	"testing"
)

// A fakeReader does reads of a plain tar and takes down what would be brought
// ahead of them.
type fakeReader struct {
	ra    readahead
	size  int64
	asked []fileRead // off and end of ranges of the blob
	read  int64      // bytes
	// most is how far ahead of the end of a read anything was asked for.
	most int64
}

func (f *fakeReader) do(off, n, fileEnd int64) {
	r := fileRead{off, off + n, fileEnd}
	s, _ := f.ra.advance(blobMap{}, r)
	f.read += n
	if from, to := s.ask(blobMap{}, f.size, f.size); from < to {
		f.asked = append(f.asked, fileRead{off: from, end: to})
		f.most = max(f.most, to-r.end)
	}
}

// total is how many bytes were asked for.
func (f *fakeReader) total() (n int64) {
	for _, a := range f.asked {
		n += a.end - a.off
	}
	return n
}

const fakeSize = 100 << 20

func TestReadaheadGrows(t *testing.T) {
	for _, n := range []int64{4 << 10, 32 << 10, 128 << 10, 1 << 20} {
		f := &fakeReader{size: fakeSize}
		for off := int64(0); off < 40<<20; off += n {
			f.do(off, n, fakeSize)
			if last := len(f.asked) - 1; last >= 0 {
				read, ahead := off+n, f.asked[last].end-off-n
				if ahead > max(2*read, minWindow) || ahead > maxWindow {
					t.Fatalf("reads of %d: %d bytes ahead after %d were read", n, ahead, read)
				}
				if read > minWindow && ahead < min(read/2, maxWindow/2) {
					t.Fatalf("reads of %d: only %d bytes ahead after %d were read", n, ahead, read)
				}
			}
		}
		for i, a := range f.asked[1:] {
			if a.off != f.asked[i].end {
				t.Errorf("reads of %d: asked for %d to %d, then for %d to %d", n, f.asked[i].off, f.asked[i].end, a.off, a.end)
			}
		}
		if calls := int64(len(f.asked)); calls > 60 {
			t.Errorf("reads of %d: %d calls for 40 MiB", n, calls)
		}
	}
}

func TestReadaheadEndsWithFile(t *testing.T) {
	f := &fakeReader{size: fakeSize}
	const begin, end = 10_000, 5_000_000
	for off := int64(begin); off < end; off += 128 << 10 {
		f.do(off, min(128<<10, end-off), end)
	}
	last := f.asked[len(f.asked)-1]
	if last.end != end {
		t.Errorf("asked for up to %d of a file that ends at %d", last.end, end)
	}
	// The two reads that have to be seen first are not asked for.
	if got := f.total(); got > end-begin-2*128<<10 || got < end-begin-3*128<<10 {
		t.Errorf("%d bytes asked for of a file of %d", got, end-begin)
	}
}

// readFiles reads the first n bytes of each file, which are size bytes long and
// have a header before them.
func (f *fakeReader) readFiles(count int, size, n int64) {
	for i := range int64(count) {
		off := 512 + i*(size+512)
		for at := int64(0); at < n; at += 128 << 10 {
			f.do(off+at, min(n-at, 128<<10), off+size)
		}
	}
}

func TestReadaheadOfManyFiles(t *testing.T) {
	tests := []struct {
		name          string
		count         int
		size, n       int64
		least, most   int64 // asked for
		windowAtLeast int64
	}{
		{"all of small files", 1000, 4096, 4096, 3 << 20, 12 << 20, 4 << 20},
		{"all of large files", 10, 4 << 20, 4 << 20, 38 << 20, 50 << 20, 4 << 20},
		{"the beginning of large files", 1000, 1 << 20, 4096, 0, 0, 0},
		{"the beginning of files near each other", 1000, 20 << 10, 4096, 0, 0, 0},
		{"half of each", 1000, 8192, 4096, 0, 0, 0},
		{"most of each", 1000, 8192, 6144, 2 << 20, 18 << 20, 1 << 20},
		{"few small files", 10, 4096, 4096, 0, 0, 0},
	}
	for _, tt := range tests {
		f := &fakeReader{size: fakeSize}
		f.readFiles(tt.count, tt.size, tt.n)
		if got := f.total(); got < tt.least || got > tt.most {
			t.Errorf("%s: %d bytes asked for, want %d to %d", tt.name, got, tt.least, tt.most)
		}
		if f.most < tt.windowAtLeast {
			t.Errorf("%s: at most %d bytes ahead, want %d", tt.name, f.most, tt.windowAtLeast)
		}
	}
}

func TestReadaheadOfRandomReads(t *testing.T) {
	for _, n := range []int64{512, 4096, 16 << 10, 128 << 10} {
		f := &fakeReader{size: fakeSize}
		rng := rand.New(rand.NewPCG(1, uint64(n)))
		const reads = 2000
		for range reads {
			f.do(rng.Int64N(fakeSize-n), n, fakeSize)
		}
		// Some of the large ones happen to follow each other.
		if got, most := f.total(), f.read/40; n < reorderSize && got != 0 || got > most {
			t.Errorf("reads of %d: %d bytes asked for beyond %d", n, got, f.read)
		}
	}
}

// TestReadaheadInterleaved has as many sequential readers as are told apart,
// and then one that reads here and there.
func TestReadaheadInterleaved(t *testing.T) {
	f := &fakeReader{size: fakeSize}
	const n, each = 64 << 10, fakeSize / maxStreams
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range int64(60) {
		for s := range int64(maxStreams) {
			f.do(s*each+i*n, n, (s+1)*each)
		}
	}
	if len(f.ra.streams) != maxStreams {
		t.Fatalf("%d streams, want %d", len(f.ra.streams), maxStreams)
	}
	for _, s := range f.ra.streams {
		if s.ahead < s.next+2<<20 {
			t.Errorf("reader at %d: asked for up to %d", s.next, s.ahead)
		}
	}
	for range 3 * maxStreams {
		f.do(rng.Int64N(fakeSize), 100, fakeSize)
	}
	if len(f.ra.streams) != maxStreams {
		t.Errorf("%d streams, want %d", len(f.ra.streams), maxStreams)
	}
}

func TestReadaheadOutOfOrder(t *testing.T) {
	inOrder, shuffled := &fakeReader{size: fakeSize}, &fakeReader{size: fakeSize}
	rng := rand.New(rand.NewPCG(1, 1))
	const n = 128 << 10
	for off := int64(0); off < 20<<20; off += 4 * n {
		for i, k := range rng.Perm(4) {
			inOrder.do(off+int64(i)*n, n, fakeSize)
			shuffled.do(off+int64(k)*n, n, fakeSize)
		}
	}
	if got, want := shuffled.total(), inOrder.total(); got < want-1<<20 || got > want+1<<20 {
		t.Errorf("%d bytes asked for, want about %d", got, want)
	}
	if shuffled.most < maxWindow/2 {
		t.Errorf("at most %d bytes ahead", shuffled.most)
	}
}

// TestReadaheadRereads: who reads the same again and again does not go on.
func TestReadaheadRereads(t *testing.T) {
	f := &fakeReader{size: fakeSize}
	for off := int64(0); off < 512<<10; off += 64 << 10 {
		f.do(off, 64<<10, fakeSize)
	}
	before := f.total()
	for range 1000 {
		f.do(256<<10, 64<<10, fakeSize)
	}
	if got := f.total(); got != before {
		t.Errorf("%d bytes asked for, %d before", got, before)
	}
}

// TestReadaheadWaste mixes everything. What is asked for has to stay in
// proportion to what is read.
func TestReadaheadWaste(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 0))
		f := &fakeReader{size: fakeSize}
		for f.read < 20<<20 {
			at := rng.Int64N(fakeSize)
			end := min(fakeSize, at+rng.Int64N(4<<20))
			n := int64(512) << rng.IntN(9)
			gap := rng.Int64N(2) * rng.Int64N(n*2)
			for range rng.IntN(200) {
				if at >= end {
					break
				}
				f.do(at, min(n, fakeSize-at), end)
				at += n + gap
			}
			for _, a := range f.asked {
				if a.off < 0 || a.end > fakeSize {
					t.Fatalf("asked for %d to %d of %d", a.off, a.end, fakeSize)
				}
			}
			// As much as was read and as much as was left out of that, and a
			// window of four times as much at the most.
			if f.total() > 6*f.read {
				t.Fatalf("seed %d: %d bytes asked for after %d were read", seed, f.total(), f.read)
			}
		}
	}
}

func TestBlobMap(t *testing.T) {
	for _, name := range []string{"plain", "gzip", "zstd", "zstd of several frames"} {
		a := newAheadTest(t, name)
		last, size := int64(0), a.x.BlobSize()
		for out := int64(0); out <= a.x.Size(); out += 1000 {
			in := a.m.in(out)
			if in < last || in > size {
				t.Fatalf("%s: byte %d at %d of a blob of %d, the one before at %d", name, out, in, size, last)
			}
			// Rounded up and down, by a byte of the blob.
			if back := a.m.out(in); back < out-1 || a.m.in(back) > in {
				t.Errorf("%s: byte %d at %d, and that is where byte %d is", name, out, in, back)
			}
			last = in
		}
		if in := a.m.in(a.x.Size()); in != size {
			t.Errorf("%s: the tar ends at byte %d of a blob of %d", name, in, size)
		}
	}
}
