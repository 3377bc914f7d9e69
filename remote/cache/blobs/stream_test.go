package blobs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
	"github.com/imgfs/imgfs/remote/cache/meta"
)

const streamSize = 64*cachetest.TestChunk + 99

// A wholeSource is a source that sends its blob whole, in pieces.
type wholeSource struct {
	t    testing.TB
	data []byte
	// before, if not nil, is called before each piece of attempt i, from 0. Its
	// error ends the attempt.
	before func(ctx context.Context, i int, off int64) error

	mu     sync.Mutex
	starts []int64 // of ReadWhole
	given  int64   // bytes, by ReadWhole
	active bool
	ranges int // that were asked for
	alone  int // reads from the beginning, for one reader
}

var _ remote.WholeBlob = (*wholeSource)(nil)

func newWholeSource(t testing.TB, seed uint64) *wholeSource {
	return &wholeSource{t: t, data: cachetest.RandomBytes(streamSize, seed)}
}

func (b *wholeSource) Digest() digest.Digest { return digest.FromBytes(b.data) }

func (b *wholeSource) Size() int64 { return int64(len(b.data)) }

func (b *wholeSource) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.alone++
	return copy(p, b.data[off:]), nil
}

func (b *wholeSource) ReadRange(context.Context, []byte, int64, func(int)) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ranges++
	return 0, fmt.Errorf("it is: %w", remote.ErrWhole)
}

func (b *wholeSource) SentWhole() bool { return true }

func (b *wholeSource) ReadWhole(ctx context.Context, w io.Writer, off int64) error {
	b.mu.Lock()
	i := len(b.starts)
	b.starts = append(b.starts, off)
	if b.active {
		b.t.Error("two streams of a blob at a time")
	}
	b.active = true
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.active = false
	}()
	const piece = 3*cachetest.TestChunk/2 + 7
	for off < b.Size() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if b.before != nil {
			if err := b.before(ctx, i, off); err != nil {
				return err
			}
		}
		n, err := w.Write(b.data[off:min(off+piece, b.Size())])
		off += int64(n)
		b.mu.Lock()
		b.given += int64(n)
		b.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// streams returns where the blob was read from, each time.
func (b *wholeSource) streams() []int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]int64(nil), b.starts...)
}

// sent returns how many bytes streams gave.
func (b *wholeSource) sent() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.given
}

func (b *wholeSource) cached(c *testCache) *Blob {
	b.t.Helper()
	cached, err := c.Blob(b, cutsOfSize(b.data, cachetest.TestChunk))
	if err != nil {
		b.t.Fatal(err)
	}
	return cached
}

// read reads a range and checks it.
func (b *wholeSource) read(ctx context.Context, from *Blob, off, n int) error {
	p := make([]byte, n)
	if got, err := from.ReadAt(ctx, p, int64(off)); err != nil {
		return fmt.Errorf("ReadAt(%d bytes, %d) = %d, %w", n, off, got, err)
	}
	if !bytes.Equal(p, b.data[off:off+n]) {
		return fmt.Errorf("ReadAt(%d bytes, %d) gave wrong bytes", n, off)
	}
	return nil
}

func (b *wholeSource) mustRead(from *Blob, off, n int) {
	b.t.Helper()
	if err := b.read(b.t.Context(), from, off, n); err != nil {
		b.t.Error(err)
	}
}

// block returns a function for before that waits at an offset until release is
// called.
func block(at int64) (before func(ctx context.Context, i int, off int64) error, release func()) {
	open := make(chan struct{})
	return func(ctx context.Context, _ int, off int64) error {
		if off < at {
			return nil
		}
		select {
		case <-open:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}, sync.OnceFunc(func() { close(open) })
}

// present returns how much of the blob is on disk.
func (b *wholeSource) present(c *testCache) int64 { return c.Holding(b.Digest()).Cached }

// A blob that is sent whole comes once for all readers, is written once, and
// there is no other copy of it.
func TestStreamOnce(t *testing.T) {
	c, src := openCache(t, t.TempDir(), nil), newWholeSource(t, 1)
	empty, err := c.Usage()
	if err != nil {
		t.Fatal(err)
	}
	src.before = func(_ context.Context, _ int, off int64) error {
		used, err := c.Usage()
		// A block and the words are more than what came.
		if most := empty + off + 8*blobfile.BlockSize; err != nil || used > most || c.Stats().Temporary != 0 {
			t.Errorf("when %d bytes had come there were %d on disk, and %d in temporary files; %v", off, used-empty, c.Stats().Temporary, err)
		}
		return nil
	}
	b := src.cached(c)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 20 {
				off := rand.IntN(streamSize - 3*cachetest.TestChunk)
				if err := src.read(t.Context(), b, off, rand.IntN(3*cachetest.TestChunk)+1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	c.Wait()
	if n := src.present(c); n != streamSize {
		t.Errorf("%d of %d bytes are on disk", n, streamSize)
	}
	if got := src.streams(); len(got) != 1 || src.sent() != streamSize || src.alone > 0 {
		t.Errorf("streams from %v gave %d bytes, and %d reads were for one", got, src.sent(), src.alone)
	}
	if n := c.Stats().Fetched; n != streamSize {
		t.Errorf("%d bytes count as fetched", n)
	}
	if v := b.Verification(); v != meta.VerifiedWhole {
		t.Errorf("the blob is verified as %v", v)
	}
	src.mustRead(b, 0, streamSize)
}

// A reader waits for its own part alone, and for nothing that is there.
func TestStreamEarly(t *testing.T) {
	c, src := openCache(t, t.TempDir(), nil), newWholeSource(t, 2)
	before, release := block(streamSize / 2)
	src.before = before
	defer release()
	b := src.cached(c)
	for range 2 {
		src.mustRead(b, 20*cachetest.TestChunk, 2*cachetest.TestChunk)
		src.mustRead(b, 100, 100)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := src.read(ctx, b, streamSize-10, 10); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("read of what has not come: %v", err)
	}
	release()
	src.mustRead(b, streamSize-10, 10)
	c.Wait()
	if got := src.streams(); len(got) != 1 || src.alone > 0 {
		t.Errorf("streams from %v, and %d reads for one", got, src.alone)
	}
}

// A stream goes on when the reader has gone that it was begun for.
func TestStreamReaderLeaves(t *testing.T) {
	c, src := openCache(t, t.TempDir(), nil), newWholeSource(t, 3)
	began, proceed := make(chan struct{}), make(chan struct{})
	src.before = func(_ context.Context, _ int, off int64) error {
		if off == 0 {
			close(began)
			<-proceed
		}
		return nil
	}
	b := src.cached(c)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error)
	go func() { left <- src.read(ctx, b, streamSize/2, 10) }()
	<-began
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the reader that left: %v", err)
	}
	close(proceed)
	src.mustRead(b, streamSize-10, 10)
	c.Wait()
	if got := src.streams(); len(got) != 1 || src.present(c) != streamSize {
		t.Errorf("streams from %v, and %d bytes on disk", got, src.present(c))
	}
}

var errBroken = fmt.Errorf("%w: broken", remote.ErrUnavailable)

// A stream that breaks fails the reads that wait for it, and the next one goes
// on where it was.
func TestStreamBroken(t *testing.T) {
	c, src := openCache(t, t.TempDir(), nil), newWholeSource(t, 4)
	half := int64(0) // where the first one broke
	src.before = func(_ context.Context, i int, off int64) error {
		if i == 0 && off > streamSize/2 {
			half = off
			return errBroken
		}
		return nil
	}
	b := src.cached(c)
	if err := src.read(t.Context(), b, streamSize-10, 10); !errors.Is(err, remote.ErrUnavailable) {
		t.Errorf("read from a stream that broke: %v", err)
	}
	src.mustRead(b, 10*cachetest.TestChunk, 10)
	if got := src.streams(); len(got) != 1 {
		t.Errorf("streams from %v, for what is there", got)
	}
	src.mustRead(b, streamSize-10, 10)
	c.Wait()
	want := half / cachetest.TestChunk * cachetest.TestChunk
	if got := src.streams(); len(got) != 2 || got[1] != want || src.present(c) != streamSize {
		t.Errorf("streams from %v, want 0 and %d; %d bytes on disk", got, want, src.present(c))
	}
	if n := c.Stats().Fetched; n != streamSize+half-want {
		t.Errorf("%d bytes count as fetched", n)
	}
}

// A read that has just come does not fail with a stream that was given up at
// that moment: it has its own time.
func TestStreamBrokenLate(t *testing.T) {
	dir, src := t.TempDir(), newWholeSource(t, 5)
	synctest.Test(t, func(t *testing.T) {
		c := openCache(t, dir, nil)
		src.t = t
		src.before = func(ctx context.Context, i int, off int64) error {
			if off < streamSize/2 || i > 1 {
				return nil
			}
			time.Sleep(time.Minute)
			return errBroken
		}
		b := src.cached(c)
		first := make(chan error, 1)
		go func() { first <- src.read(t.Context(), b, streamSize-10, 10) }()
		time.Sleep(50 * time.Second)
		begun := time.Now()
		if err := src.read(t.Context(), b, streamSize-10*cachetest.TestChunk, 10); !errors.Is(err, remote.ErrUnavailable) {
			t.Errorf("the late read: %v", err)
		}
		if took := time.Since(begun); took < time.Minute || took > 2*time.Minute {
			t.Errorf("the late read waited for %s", took)
		}
		if err := <-first; !errors.Is(err, remote.ErrUnavailable) {
			t.Errorf("the first read: %v", err)
		}
		src.mustRead(b, streamSize-10, 10)
		c.Close()
	})
}

// A stream that brings nothing, and that nobody waits for, ends.
func TestStreamIdle(t *testing.T) {
	dir, src := t.TempDir(), newWholeSource(t, 6)
	synctest.Test(t, func(t *testing.T) {
		c := openCache(t, dir, nil)
		src.t = t
		src.before, _ = block(streamSize / 2)
		b := src.cached(c)
		src.mustRead(b, 10, 10)
		time.Sleep(streamIdle - time.Second)
		synctest.Wait()
		if !b.s.streaming() {
			t.Error("the stream has ended soon")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*streamIdle)
		defer cancel()
		if err := src.read(ctx, b, streamSize-10, 10); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a read waits: %v", err)
		}
		if got := src.streams(); len(got) != 1 {
			t.Errorf("streams from %v while a read waits", got)
		}
		time.Sleep(2 * streamIdle)
		synctest.Wait()
		if b.s.streaming() {
			t.Error("the stream has not ended")
		}
		src.before = nil
		src.mustRead(b, streamSize-10, 10)
		c.Close()
	})
}

// A chunk that comes wrong is not stored, and keeps no other from it. Who
// wants it asks again.
func TestStreamWrongChunk(t *testing.T) {
	c, src := openCache(t, t.TempDir(), nil), newWholeSource(t, 8)
	right := bytes.Clone(src.data)
	chunks := chunksOf(src.data, cachetest.TestChunk)
	b, err := c.Blob(src, chunks)
	if err != nil {
		t.Fatal(err)
	}
	src.data[30*cachetest.TestChunk] ^= 1
	p := make([]byte, 10)
	if _, err := b.ReadAt(t.Context(), p, 10); err != nil {
		t.Error(err)
	}
	c.Wait()
	if n := c.Holding(b.Digest()).Cached; n != streamSize-cachetest.TestChunk {
		t.Errorf("%d bytes are on disk", n)
	}
	if _, err := b.ReadAt(t.Context(), p, 30*cachetest.TestChunk); !errors.Is(err, remote.ErrDigest) {
		t.Errorf("read of the wrong chunk: %v", err)
	}
	src.data = right
	src.mustRead(b, 30*cachetest.TestChunk, 10)
	c.Wait()
	if got := src.streams(); got[len(got)-1] != 30*cachetest.TestChunk || src.present(c) != streamSize {
		t.Errorf("streams from %v, and %d bytes on disk", got, src.present(c))
	}
}

// A Cache can be closed in the middle of a stream.
func TestStreamClose(t *testing.T) {
	c, src := openCache(t, t.TempDir(), nil), newWholeSource(t, 9)
	src.before, _ = block(streamSize / 2)
	b := src.cached(c)
	src.mustRead(b, 10, 10)
	failed := make(chan error)
	go func() { failed <- src.read(t.Context(), b, streamSize-10, 10) }()
	time.Sleep(5 * time.Millisecond)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; !errors.Is(err, os.ErrClosed) {
		t.Errorf("a read that waited: %v", err)
	}
}

// streaming reports whether a stream brings the blob.
func (s *blobState) streaming() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream != nil
}
