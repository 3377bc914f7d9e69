package blobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

func TestReadAt(t *testing.T) {
	testenv.Slow(t)
	const c = cachetest.TestChunk
	sizes := []int{0, 1, c - 1, c, c + 1, 2*c - 1, 2 * c, 5*c + 1}
	offsets := []int64{0, 1, c - 1, c, c + 1, 2*c - 1, 2 * c, 5 * c, 5*c + 1, 9 * c}
	lengths := []int{0, 1, c - 1, c, c + 1, 2 * c, 3*c + 2, 8 * c}
	for _, size := range sizes {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			dir := t.TempDir()
			opts := &testOptions{MaxRequest: 2 * cachetest.TestChunk}
			first, second := openCache(t, dir, opts), openCache(t, dir, opts)
			seed := uint64(100)
			for _, off := range offsets {
				for _, n := range lengths {
					seed++ // each time a blob that is not there yet
					src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(size, seed)}
					compareReadAt(t, cached(t, first, src), src.Data, n, off)
					asked := len(src.Asked())
					compareReadAt(t, cached(t, second, src), src.Data, n, off)
					if got := len(src.Asked()); got != asked {
						t.Errorf("ReadAt(%d bytes, %d) asked the source again", n, off)
					}
				}
			}
		})
	}
}

// compareReadAt checks one read against what bytes.Reader does.
func compareReadAt(t *testing.T, b *Blob, data []byte, n int, off int64) {
	t.Helper()
	want, got := make([]byte, n), make([]byte, n)
	wantN, wantErr := 0, error(nil)
	if n > 0 {
		wantN, wantErr = bytes.NewReader(data).ReadAt(want, off)
	}
	gotN, err := b.ReadAt(t.Context(), got, off)
	if gotN != wantN || err != wantErr || !bytes.Equal(got, want) {
		t.Errorf("ReadAt(%d bytes, %d) of %d = %d, %v, equal %v; want %d, %v",
			n, off, len(data), gotN, err, bytes.Equal(got, want), wantN, wantErr)
	}
}

// readerAt gives a Blob the methods of the standard library.
type readerAt struct {
	ctx context.Context
	b   remote.Blob
}

func (r readerAt) ReadAt(p []byte, off int64) (int, error) { return r.b.ReadAt(r.ctx, p, off) }

func TestReaderSuite(t *testing.T) {
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(5*cachetest.TestChunk+100, 2)}
	b := cached(t, openCache(t, t.TempDir(), nil), src)
	if err := iotest.TestReader(io.NewSectionReader(readerAt{t.Context(), b}, 0, b.Size()), src.Data); err != nil {
		t.Error(err)
	}
	if _, err := b.ReadAt(t.Context(), make([]byte, 1), -1); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("ReadAt(-1) = %v, want an error that wraps ErrInvalid", err)
	}
}

func TestRequests(t *testing.T) {
	const c = cachetest.TestChunk
	src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(10*c+7, 3)}
	cache := openCache(t, t.TempDir(), &testOptions{MaxRequest: 4 * c})
	b := cached(t, cache, src)
	steps := []struct {
		off, n int64
		want   []cachetest.Span // asked by this step
	}{
		{c + 5, 10, []cachetest.Span{{Off: c, End: 2 * c}}},
		{c, c, nil},
		{0, 4 * c, []cachetest.Span{{Off: 0, End: c}, {Off: 2 * c, End: 4 * c}}},
		{0, 4 * c, nil},
		{4*c + 1, 5 * c, []cachetest.Span{{Off: 4 * c, End: 8 * c}, {Off: 8 * c, End: 10 * c}}},
		{10 * c, 7, []cachetest.Span{{Off: 10 * c, End: 10*c + 7}}},
	}
	done := 0
	for _, s := range steps {
		checkRead(t, b, src, s.off, s.n)
		all := src.Asked()
		// Requests of one read may be made in any order.
		if got := asSet(all[done:]); !reflect.DeepEqual(got, asSet(s.want)) {
			t.Errorf("read of %d bytes at %d asked for %v, want %v", s.n, s.off, all[done:], s.want)
		}
		done = len(all)
	}
	st := cache.Stats()
	if st.Requests != int64(done) || st.Fetched != src.Size() || st.HitBytes != c+c+4*c {
		t.Errorf("Stats() = %+v; want %d requests, %d bytes fetched, %d from disk", st, done, src.Size(), 6*c)
	}
}

func asSet(spans []cachetest.Span) map[cachetest.Span]int {
	m := map[cachetest.Span]int{}
	for _, s := range spans {
		m[s]++
	}
	return m
}

func TestWrongBytesFromSource(t *testing.T) {
	const c = cachetest.TestChunk
	flip := func(p []byte, at int) (int, error) { p[at] ^= 0x10; return len(p), nil }
	tests := []struct {
		name     string
		answer   func(ctx context.Context, i int, p []byte) (int, error)
		want     error
		text     string // in the error
		requests int
		good     []int64 // chunks on disk afterwards
	}{
		{"bit flipped once", func(_ context.Context, i int, p []byte) (int, error) {
			if i == 0 {
				return flip(p, 2*c+9)
			}
			return len(p), nil
		}, nil, "", 2, []int64{0, 1, 2, 3}},
		{"bit flipped always", func(_ context.Context, i int, p []byte) (int, error) {
			return flip(p, min(2*c+9, len(p)-1))
		}, remote.ErrDigest, "chunk 2 (bytes 8192 to 12287)", 2, []int64{0, 1, 3}},
		{"short once", func(_ context.Context, i int, p []byte) (int, error) {
			if i == 0 {
				return 2*c - 1, io.ErrUnexpectedEOF
			}
			return len(p), nil
		}, nil, "", 2, []int64{0, 1, 2, 3}},
		{"ends early always", func(_ context.Context, i int, p []byte) (int, error) {
			return len(p) - 1, io.EOF
		}, remote.ErrDigest, "chunk 3 (bytes 12288 to 16383)", 2, []int64{0, 1, 2}},
		{"short without error", func(_ context.Context, i int, p []byte) (int, error) {
			return 0, nil
		}, remote.ErrDigest, "chunk 0 (bytes 0 to 4095)", 2, nil},
		{"unavailable in the middle", func(_ context.Context, i int, p []byte) (int, error) {
			return 3*c + 5, fmt.Errorf("connection lost: %w: %w", remote.ErrUnavailable, io.ErrUnexpectedEOF)
		}, remote.ErrUnavailable, "connection lost", 1, []int64{0, 1, 2}},
		{"not found", func(context.Context, int, []byte) (int, error) {
			return 0, remote.ErrNotFound
		}, remote.ErrNotFound, "not found", 1, nil},
		{"claims too much", func(_ context.Context, i int, p []byte) (int, error) {
			return len(p) + 100, nil
		}, nil, "", 1, []int64{0, 1, 2, 3}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(4*c, 4), Answer: tt.answer}
			dir := t.TempDir()
			cache := openCache(t, dir, nil)
			b := cached(t, cache, src)
			p := make([]byte, src.Size())
			_, err := b.ReadAt(t.Context(), p, 0)
			if !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if err == nil && !bytes.Equal(p, src.Data) {
				t.Error("wrong bytes read")
			}
			if err != nil && (!strings.Contains(err.Error(), tt.text) || !strings.Contains(err.Error(), src.Digest().String())) {
				t.Errorf("error %q; want it to name %s and %q", err, src.Digest(), tt.text)
			}
			if got := len(src.Asked()); got != tt.requests {
				t.Errorf("%d requests, want %d: %v", got, tt.requests, src.Asked())
			}
			checkOnDisk(t, dir, src, tt.good)
		})
	}
}

// checkOnDisk checks that these chunks, and no others, come from disk.
func checkOnDisk(t *testing.T, dir string, src *cachetest.FakeBlob, good []int64) {
	t.Helper()
	dead := &cachetest.FakeBlob{T: t, Data: src.Data, Answer: func(context.Context, int, []byte) (int, error) {
		return 0, remote.ErrUnavailable
	}}
	b := cached(t, openCache(t, dir, nil), dead)
	want := map[int64]bool{}
	for _, k := range good {
		want[k] = true
	}
	for k := range b.s.Layout.Chunks() {
		off, end := b.s.Bounds(k)
		p := make([]byte, end-off)
		_, err := b.ReadAt(t.Context(), p, off)
		if err == nil && !bytes.Equal(p, src.Data[off:end]) {
			t.Errorf("chunk %d is wrong on disk", k)
		}
		if (err == nil) != want[k] {
			t.Errorf("chunk %d: error %v, want on disk %v", k, err, want[k])
		}
	}
}

func TestBadChunks(t *testing.T) {
	ok := digest.FromString("")
	tests := []struct {
		name   string
		digest digest.Digest
		size   int64
		chunks Chunks
	}{
		{"no sums", ok, 1, Chunks{Size: 4096}},
		{"a sum too many", ok, 4096, Chunks{Size: 4096, Sums: make([]byte, 64)}},
		{"half a sum", ok, 4096, Chunks{Size: 4096, Sums: make([]byte, 33)}},
		{"no size", ok, 1, Chunks{Sums: make([]byte, 32)}},
		{"negative size", ok, 1, Chunks{Size: -4096, Sums: make([]byte, 32)}},
		{"odd size", ok, 1, Chunks{Size: 4097, Sums: make([]byte, 32)}},
		{"huge chunk", ok, 1, Chunks{Size: 32 << 20, Sums: make([]byte, 32)}},
		{"negative blob", ok, -1, Chunks{Size: 4096}},
		{"huge blob", ok, 1<<63 - 1, Chunks{Size: 16 << 20, Sums: make([]byte, 32)}},
		{"path as digest", "sha256:../../../../etc/passwd", 0, Chunks{Size: 4096}},
		{"no digest", "", 0, Chunks{Size: 4096}},
	}
	c := openCache(t, t.TempDir(), nil)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := c.Blob(&cachetest.ClaimedBlob{Sum: tt.digest, Length: tt.size}, tt.chunks); err == nil {
				t.Error("accepted")
			}
		})
	}
}
