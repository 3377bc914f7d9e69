package blobs

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
)

func TestSingleFlight(t *testing.T) {
	const c = cachetest.TestChunk
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(8*c, 5)}
		src.Answer = func(_ context.Context, _ int, p []byte) (int, error) {
			<-gate
			return len(p), nil
		}
		cache := openCache(t, t.TempDir(), nil)
		// Readers of two Blobs of the same content share what they fetch.
		blobs := []*Blob{cached(t, cache, src), cached(t, cache, src)}
		var wg sync.WaitGroup
		for i := range int64(40) {
			wg.Go(func() { checkReadNoFatal(t, blobs[i%2], src, i%7*c+i, c+5) })
		}
		synctest.Wait()
		close(gate)
		wg.Wait()
		n := int64(0)
		for _, r := range src.Asked() {
			n += r.End - r.Off
		}
		if n != 8*c {
			t.Errorf("fetched %d bytes of %d for 40 readers: %v", n, 8*c, src.Asked())
		}
	})
}

// checkReadNoFatal is checkRead for goroutines other than the test's.
func checkReadNoFatal(t testing.TB, b *Blob, src *cachetest.FakeBlob, off, n int64) {
	p := make([]byte, n)
	if _, err := b.ReadAt(t.Context(), p, off); err != nil || !bytes.Equal(p, src.Data[off:off+n]) {
		t.Errorf("ReadAt(%d bytes, %d): error %v, equal %v", n, off, err, bytes.Equal(p, src.Data[off:off+n]))
	}
}

func TestCancelledWaiters(t *testing.T) {
	const c = cachetest.TestChunk
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(2*c, 6)}
		src.Answer = func(ctx context.Context, _ int, p []byte) (int, error) {
			select {
			case <-gate:
				return len(p), nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
		b := cached(t, openCache(t, t.TempDir(), nil), src)
		read := func(ctx context.Context) chan error {
			ch := make(chan error, 1)
			go func() {
				_, err := b.ReadAt(ctx, make([]byte, c), 0)
				ch <- err
			}()
			synctest.Wait()
			return ch
		}
		ctx1, cancel1 := context.WithCancel(t.Context())
		ctx2, cancel2 := context.WithCancel(t.Context())
		first, second := read(ctx1), read(ctx2)

		cancel1()
		if err := <-first; err != context.Canceled {
			t.Errorf("cancelled reader got %v, want context.Canceled", err)
		}
		third := read(t.Context())
		if got := len(src.Asked()); got != 1 {
			t.Errorf("%d requests while the first is under way, want 1", got)
		}
		cancel2()
		if err := <-second; err != context.Canceled {
			t.Errorf("second cancelled reader got %v, want context.Canceled", err)
		}
		close(gate)
		if err := <-third; err != nil {
			t.Errorf("reader that stayed got %v", err)
		}

		// The last reader to leave takes the request with it.
		gate = make(chan struct{})
		b2 := make([]byte, 1)
		ctx4, cancel4 := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			_, err := b.ReadAt(ctx4, b2, c)
			left <- err
		}()
		synctest.Wait()
		cancel4()
		if err := <-left; err != context.Canceled {
			t.Errorf("last reader got %v, want context.Canceled", err)
		}
		synctest.Wait()
		src.Mu.Lock()
		if len(src.Active) != 0 {
			t.Errorf("requests that nobody waits for: %v", src.Active)
		}
		src.Mu.Unlock()
		close(gate)
		checkRead(t, b, src, c, c)
	})
}

// A slowBlob answers in its own way.
type slowBlob struct {
	*cachetest.FakeBlob
	readAt func(ctx context.Context, p []byte, off int64) (int, error)
}

func (b slowBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return b.readAt(ctx, p, off)
}

// A reader that comes when a request has been given up, but has not ended
// yet, does not get its error.
func TestAbandonedFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		requests := 0
		src := slowBlob{FakeBlob: &cachetest.FakeBlob{Data: cachetest.RandomBytes(cachetest.TestChunk, 9)}}
		src.readAt = func(ctx context.Context, p []byte, off int64) (int, error) {
			requests++
			if requests == 1 {
				<-gate
				return 0, ctx.Err()
			}
			return copy(p, src.Data[off:]), nil
		}
		b, err := openCache(t, t.TempDir(), nil).Blob(src, cutsOfSize(src.Data, cachetest.TestChunk))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan error)
		go func() {
			_, err := b.ReadAt(ctx, make([]byte, 1), 0)
			left <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-left; err != context.Canceled {
			t.Errorf("cancelled reader got %v, want context.Canceled", err)
		}
		checkRead(t, b, src.FakeBlob, 0, cachetest.TestChunk)
		close(gate)
	})
}

// A flight that fails for the Blob that began it must not fail another Blob,
// whose source is another one.
func TestOtherSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := cachetest.RandomBytes(cachetest.TestChunk, 7)
		gate := make(chan struct{})
		bad := &cachetest.FakeBlob{T: t, Data: data, Answer: func(context.Context, int, []byte) (int, error) {
			<-gate
			return 0, remote.ErrUnauthorized
		}}
		good := &cachetest.FakeBlob{T: t, Data: data}
		cache := openCache(t, t.TempDir(), nil)
		b1, b2 := cached(t, cache, bad), cached(t, cache, good)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := b1.ReadAt(t.Context(), make([]byte, 1), 0); !errors.Is(err, remote.ErrUnauthorized) {
				t.Errorf("reader of the bad source got %v, want ErrUnauthorized", err)
			}
		})
		synctest.Wait()
		wg.Go(func() { checkReadNoFatal(t, b2, good, 0, 1) })
		synctest.Wait()
		close(gate)
		wg.Wait()
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(cachetest.TestChunk, 8)}
		src.Answer = func(ctx context.Context, _ int, p []byte) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		}
		c := openCache(t, t.TempDir(), nil)
		b := cached(t, c, src)
		failed := make(chan error, 1)
		go func() {
			_, err := b.ReadAt(t.Context(), make([]byte, 1), 0)
			failed <- err
		}()
		synctest.Wait()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := <-failed; err == nil {
			t.Error("a read survived Close")
		}
		if _, err := b.ReadAt(t.Context(), make([]byte, 1), 0); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("read after Close: %v, want fs.ErrClosed", err)
		}
		if _, err := c.Blob(src, cutsOfSize(src.Data, cachetest.TestChunk)); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("Blob after Close: %v, want fs.ErrClosed", err)
		}
	})
}

// A reader that comes between the end of all fetches and that of the directory
// leaves no file open.
func TestOpenFileClosed(t *testing.T) {
	c := openCache(t, t.TempDir(), nil)
	b := cached(t, c, &cachetest.FakeBlob{T: t, Data: cachetest.RandomBytes(3*cachetest.TestChunk, 1)})
	c.Dir.Shut()
	c.blobsPart.Shut()
	c.blobsPart.CloseFiles()
	if b.s.openFileTo(true) != nil || b.s.file.Load() != nil {
		t.Error("a file is open")
	}
}
