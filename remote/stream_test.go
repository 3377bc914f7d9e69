package remote_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
)

// A fakeBlob answers reads with a function.
type fakeBlob struct {
	size int64
	read func(ctx context.Context, p []byte, off int64) (int, error)
}

func (b *fakeBlob) Digest() digest.Digest { return sum }
func (b *fakeBlob) Size() int64           { return b.size }
func (b *fakeBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return b.read(ctx, p, off)
}

// blobOf serves content.
func blobOf(content []byte) *fakeBlob {
	return &fakeBlob{int64(len(content)), func(_ context.Context, p []byte, off int64) (int, error) {
		return bytes.NewReader(content).ReadAt(p, off)
	}}
}

func counting(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i ^ i>>8)
	}
	return p
}

func TestStream(t *testing.T) {
	for _, size := range []int{0, 1, 9, 10, 11, 29, 30, 31, 40, 95, 1000} {
		content := counting(size)
		for _, opts := range []*remote.StreamOptions{nil, {RangeSize: 10}, {RangeSize: 10, InFlight: 1}, {RangeSize: 10, InFlight: 200}} {
			r := remote.NewStream(t.Context(), blobOf(content), opts)
			if err := iotest.TestReader(r, content); err != nil {
				t.Errorf("Read of %d bytes with %+v: %v", size, opts, err)
			}
			r.Close()

			r = remote.NewStream(t.Context(), blobOf(content), opts)
			head := make([]byte, size/3)
			_, err := io.ReadFull(r, head)
			got := bytes.NewBuffer(head)
			n, err2 := r.(io.WriterTo).WriteTo(got)
			if err != nil || err2 != nil || !bytes.Equal(got.Bytes(), content) || n != int64(size-len(head)) {
				t.Errorf("Read and WriteTo of %d bytes with %+v: got %d bytes, errors %v and %v", size, opts, got.Len(), err, err2)
			}
			r.Close()
		}
	}
}

func TestStreamRequests(t *testing.T) {
	content := counting(1005)
	var mu sync.Mutex
	running, most, requests := 0, 0, 0
	buffers := make(map[*byte]bool)
	plain := blobOf(content)
	b := &fakeBlob{plain.size, func(ctx context.Context, p []byte, off int64) (int, error) {
		mu.Lock()
		running, requests = running+1, requests+1
		most = max(most, running)
		buffers[&p[0]] = true
		mu.Unlock()
		time.Sleep(time.Millisecond)
		mu.Lock()
		running--
		mu.Unlock()
		return plain.read(ctx, p, off)
	}}
	r := remote.NewStream(t.Context(), b, &remote.StreamOptions{RangeSize: 10, InFlight: 3})
	got, err := io.ReadAll(r)
	r.Close()
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("got %d bytes and error %v, want %d", len(got), err, len(content))
	}
	if requests != 101 || most > 3 || len(buffers) > 3 {
		t.Errorf("got %d requests, %d at a time, into %d buffers, want 101, at most 3, at most 3", requests, most, len(buffers))
	}
}

func TestStreamSmallBlobIsOneRequest(t *testing.T) {
	content := counting(1000)
	plain := blobOf(content)
	var requests atomic.Int32
	b := &fakeBlob{plain.size, func(ctx context.Context, p []byte, off int64) (int, error) {
		requests.Add(1)
		if len(p) != 1000 {
			t.Errorf("a read of %d bytes", len(p))
		}
		return plain.read(ctx, p, off)
	}}
	r := remote.NewStream(t.Context(), b, nil)
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
		t.Errorf("got %d bytes and error %v", len(got), err)
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("got %d requests, want 1", n)
	}
}

func TestStreamErrors(t *testing.T) {
	content := counting(100)
	broken := errors.New("broken")
	for _, c := range []struct {
		name string
		// The range at 50 gives n bytes and err.
		n    int
		err  error
		want error
	}{
		{"error", 0, broken, broken},
		{"error after some bytes", 7, broken, broken},
		{"early end", 3, io.EOF, io.ErrUnexpectedEOF},
		{"short without an error", 3, nil, io.ErrUnexpectedEOF},
		{"nothing without an error", 0, nil, io.ErrUnexpectedEOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := blobOf(content)
			plain := b.read
			b.read = func(ctx context.Context, p []byte, off int64) (int, error) {
				if off == 50 {
					return copy(p[:c.n], content[50:]), c.err
				}
				return plain(ctx, p, off)
			}
			r := remote.NewStream(t.Context(), b, &remote.StreamOptions{RangeSize: 10, InFlight: 4})
			defer r.Close()
			got, err := io.ReadAll(r)
			if !errors.Is(err, c.want) || !bytes.Equal(got, content[:50+c.n]) {
				t.Errorf("got %d bytes and error %v, want %d and %v", len(got), err, 50+c.n, c.want)
			}
			if _, again := r.Read(make([]byte, 1)); again != err {
				t.Errorf("the next Read: got error %v, want %v again", again, err)
			}
		})
	}
	b := blobOf(content)
	b.size = -1
	r := remote.NewStream(t.Context(), b, nil)
	defer r.Close()
	if _, err := io.ReadAll(r); err == nil {
		t.Error("a blob of size -1: no error")
	}
}

// blocked returns a blob whose reads wait for release or the context.
func blocked(release <-chan struct{}) *fakeBlob {
	return &fakeBlob{1 << 40, func(ctx context.Context, p []byte, off int64) (int, error) {
		select {
		case <-release:
			return len(p), nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}}
}

func TestStreamCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := remote.NewStream(ctx, blocked(nil), nil)
	time.AfterFunc(10*time.Millisecond, cancel)
	if n, err := r.Read(make([]byte, 10)); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("got %d bytes and error %v, want %v", n, err, context.Canceled)
	}
	r.Close()
}

// TestStreamCancelStubborn has a blob that does not heed its context: Read
// still returns, and Close waits.
func TestStreamCancelStubborn(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	var ended atomic.Bool
	r := remote.NewStream(ctx, &fakeBlob{10, func(context.Context, []byte, int64) (int, error) {
		<-release
		ended.Store(true)
		return 0, io.ErrClosedPipe
	}}, nil)
	cancel()
	if _, err := r.Read(make([]byte, 10)); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
	time.AfterFunc(10*time.Millisecond, func() { close(release) })
	r.Close()
	if !ended.Load() {
		t.Error("Close did not wait for the blob's read")
	}
}

func TestStreamDeadline(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	r := remote.NewStream(ctx, blocked(nil), nil)
	defer r.Close()
	if _, err := r.Read(make([]byte, 10)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got error %v, want %v", err, context.DeadlineExceeded)
	}
}

func TestStreamClose(t *testing.T) {
	r := remote.NewStream(t.Context(), blocked(nil), nil)
	time.AfterFunc(10*time.Millisecond, func() { r.Close() })
	if _, err := r.Read(make([]byte, 10)); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Read while Close is called: got error %v, want %v", err, fs.ErrClosed)
	}
	if err := r.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
	if _, err := r.Read(make([]byte, 10)); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Read after Close: got error %v, want %v", err, fs.ErrClosed)
	}
	// In the midst of a blob that could go on for ever.
	release := make(chan struct{})
	close(release)
	r = remote.NewStream(t.Context(), blocked(release), &remote.StreamOptions{RangeSize: 100})
	if _, err := io.CopyN(io.Discard, r, 1050); err != nil {
		t.Error(err)
	}
	r.Close()
}

type brokenWriter struct{ left int }

func (w *brokenWriter) Write(p []byte) (int, error) {
	if n := w.left; n < len(p) {
		w.left = 0
		return n, io.ErrShortWrite
	}
	w.left -= len(p)
	return len(p), nil
}

func TestStreamWriteToBroken(t *testing.T) {
	content := counting(100)
	r := remote.NewStream(t.Context(), blobOf(content), &remote.StreamOptions{RangeSize: 10})
	defer r.Close()
	n, err := r.(io.WriterTo).WriteTo(&brokenWriter{left: 25})
	if n != 25 || !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("got %d and error %v, want 25 and %v", n, err, io.ErrShortWrite)
	}
	if rest, err := io.ReadAll(r); err != nil || !bytes.Equal(rest, content[25:]) {
		t.Errorf("the rest: got %d bytes and error %v, want 75", len(rest), err)
	}
}

// TestStreamFrom: a stream that begins at a byte gives the rest of the blob, and asks for
// nothing before that.
func TestStreamFrom(t *testing.T) {
	content := counting(95)
	for _, from := range []int64{-1, 0, 1, 10, 85, 94, 95, 96, 1000} {
		least := max(from, 0)
		plain := blobOf(content)
		b := &fakeBlob{plain.size, func(ctx context.Context, p []byte, off int64) (int, error) {
			if off < least {
				t.Errorf("from %d: a read at %d", from, off)
			}
			return plain.read(ctx, p, off)
		}}
		for _, opts := range []*remote.StreamOptions{{From: from}, {From: from, RangeSize: 10, InFlight: 3}} {
			r := remote.NewStream(t.Context(), b, opts)
			got, err := io.ReadAll(r)
			r.Close()
			if want := content[min(least, 95):]; err != nil || !bytes.Equal(got, want) {
				t.Errorf("from %d with %+v: got %d bytes, error %v, want %d", from, opts, len(got), err, len(want))
			}
		}
	}
}
