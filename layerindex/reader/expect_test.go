package reader

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

var errNotThere = errors.New("not there")

// A sparingBlob fetches nothing behind byte edge for what is only expected.
type sparingBlob struct {
	*aheadBlob
	limit int64

	mu      sync.Mutex
	refused int
}

func (b *sparingBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if IsExpected(ctx) && off+int64(len(p)) > b.limit {
		b.mu.Lock()
		b.refused++
		b.mu.Unlock()
		return 0, errNotThere
	}
	return b.aheadBlob.ReadAt(ctx, p, off)
}

// held reports whether some bytes of the tar are read without waiting, rightly.
func (a *aheadTest) heldAt(t *testing.T, off, n int64) bool {
	t.Helper()
	p := make([]byte, n)
	if !a.r.ReadHeld(p, off, a.x.Size(), context.Background) {
		return false
	}
	if !bytes.Equal(p, a.tar[off:off+n]) {
		t.Errorf("wrong bytes at %d", off)
	}
	return true
}

// TestExpectDecodes: what is expected is in memory before it is read, and nothing beyond the
// spans that it lies in.
func TestExpectDecodes(t *testing.T) {
	setProcs(t, 2)
	for _, c := range []string{"gzip", "zstd of several frames"} {
		a := newAheadTest(t, c)
		const off, end = 700_000, 1_300_000
		a.r.Expect(t.Context(), off, end)
		if !a.heldAt(t, off, end-off) {
			t.Errorf("%s: nothing is decoded", c)
		}
		if _, to, asked := a.blob.touched(); asked > 0 || to > a.m.in(end)+4*streamPiece {
			t.Errorf("%s: %d bytes were asked for ahead, and the blob was read to byte %d, want %d", c, asked, to, a.m.in(end))
		}
		for _, r := range [][2]int64{{-1, 5}, {5, 5}, {a.x.Size(), a.x.Size() + 1}} {
			a.r.Expect(t.Context(), r[0], r[1]) // nothing to do, and no harm
		}
	}
}

// TestExpectRoom: no more is decoded than half of the cache holds until somebody reads it, or
// something else.
func TestExpectRoom(t *testing.T) {
	setProcs(t, 2)
	a := newAheadTest(t, "gzip")
	a.r.Close()
	c := NewSpanCache(1 << 20) // of 2.5 MiB
	a.r = New(a.x, a.blob, &Options{Cache: c})
	t.Cleanup(func() { a.r.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.r.Expect(ctx, 0, a.x.Size())
	}()
	settle := func() (used int64) {
		for {
			time.Sleep(5 * time.Millisecond)
			c.mu.Lock()
			waits, now := c.changed != nil && c.jobs == 0 && c.decoding == 0, c.offerUsed
			c.mu.Unlock()
			if waits && now == used {
				return used
			}
			used = now
			select {
			case <-done:
				return used
			default:
			}
		}
	}
	if used := settle(); used == 0 || used > c.limit/offerShare {
		t.Fatalf("%d bytes wait to be read, want at most %d", used, c.limit/offerShare)
	}
	for i := range 2 {
		if !a.heldAt(t, startOut(a.m.l, i), 1000) {
			t.Fatalf("span %d is not decoded, and those before it were read", i)
		}
		settle()
	}
	there := func(i int) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.spans[spanKey{a.r, i}] != nil
	}
	if !there(2) || there(3) {
		t.Fatalf("the third span is there: %v, the fourth: %v", there(2), there(3))
	}
	// A reader that goes elsewhere takes the place of what nobody reads.
	checkRead(t, a.r, a.tar, a.x.Size()-100_000, 1000)
	settle()
	if there(2) || !there(3) {
		t.Errorf("after something else was read the third span is there: %v, the fourth: %v", there(2), there(3))
	}
	cancel()
	<-done
}

// TestExpectVain: when all that is read is something else it says so.
func TestExpectVain(t *testing.T) {
	setProcs(t, 2)
	a := newAheadTest(t, "gzip")
	a.r.Close()
	c := NewSpanCache(1 << 20)
	a.r = New(a.x, a.blob, &Options{Cache: c})
	t.Cleanup(func() { a.r.Close() })
	stop, last := make(chan struct{}), a.m.l.Len()-1
	var reader sync.WaitGroup
	reader.Go(func() {
		// Spans that have no room beside each other.
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := a.r.ReadAt(t.Context(), make([]byte, 10), startOut(a.m.l, last-i%(last-3))); err != nil {
				t.Error(err)
			}
		}
	})
	useful := 0
	for a.r.Expect(t.Context(), 0, startOut(a.m.l, 3)) {
		if useful++; useful > 1000 {
			t.Error("it never says that all is in vain")
			break
		}
	}
	close(stop)
	reader.Wait()
	if !a.r.Expect(t.Context(), 0, 1000) {
		t.Error("it says so once more")
	}
}

// TestExpectJoined: a reader who waits for what is being decoded because it is expected does
// not get the error of that.
func TestExpectJoined(t *testing.T) {
	setProcs(t, 2)
	a := newAheadTest(t, "gzip")
	a.r.Close()
	// The first pieces are there; the rest would have to be fetched.
	blob := &sparingBlob{aheadBlob: a.blob, limit: startIn(a.m.l, 1) + 2*aheadPiece}
	for range 50 {
		a.r = New(a.x, blob, nil)
		var readers sync.WaitGroup
		readers.Go(func() { a.r.Expect(t.Context(), 0, a.x.Size()) })
		for i := range int64(4) {
			readers.Go(func() {
				p, off := make([]byte, 1000), (i+1)*500_000
				if n, err := a.r.ReadAt(t.Context(), p, off); n != len(p) || err != nil || !bytes.Equal(p, a.tar[off:off+1000]) {
					t.Errorf("byte %d: %d bytes, %v", off, n, err)
				}
			})
		}
		readers.Wait()
		a.r.Close()
	}
	if blob.refused == 0 {
		t.Error("nothing was refused")
	}
}

// TestExpectEnds: Expect ends with its context and with the reader, and does nothing on one
// processor.
func TestExpectEnds(t *testing.T) {
	for _, how := range []string{"context", "Close"} {
		setProcs(t, 1)
		a := newAheadTest(t, "gzip")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			a.r.Expect(ctx, 0, 1_000_000)
		}()
		select {
		case <-done:
			t.Error("it has not waited")
		case <-time.After(20 * time.Millisecond):
		}
		if _, to, _ := a.blob.touched(); to > 0 {
			t.Error("something is decoded on one processor")
		}
		if how == "context" {
			cancel()
		} else {
			a.r.Close()
		}
		<-done
		cancel()
	}
}
