package reader

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/build"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
	"github.com/imgfs/imgfs/layerindex/internal/spool"
	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/opencontainers/go-digest"
)

func buildBomb(t testing.TB, n int, large bool) (*layerindex.Index, []byte) {
	t.Helper()
	_, blob, diffID := samples.Bomb(t, n, large)
	l := layerindex.Layer{Digest: digest.FromBytes(blob), Size: int64(len(blob)), DiffID: diffID}
	x, err := build.Index(t.Context(), l, bytes.NewReader(blob), nil)
	if err != nil {
		t.Fatal(err)
	}
	return x, blob
}

// A hookedBlob calls hook with each read.
type hookedBlob struct {
	samples.Blob
	hook func()
}

func (b hookedBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := b.Blob.ReadAt(ctx, p, off)
	b.hook()
	return n, err
}

// A tempFile counts what is written to it.
type tempFile struct {
	TempFile
	written, closed atomic.Int64
	slow            time.Duration
}

func (f *tempFile) WriteAt(p []byte, off int64) (int, error) {
	time.Sleep(f.slow)
	n, err := f.TempFile.WriteAt(p, off)
	f.written.Add(int64(n))
	return n, err
}

func (f *tempFile) Close() error {
	f.closed.Add(1)
	return f.TempFile.Close()
}

func newTempFile(t testing.TB, slow time.Duration) *tempFile {
	t.Helper()
	f, err := inDir(t.TempDir())(0)
	if err != nil {
		t.Fatal(err)
	}
	return &tempFile{TempFile: f, slow: slow}
}

var errNoTemp = errors.New("no room")

func noTemp(int64) (TempFile, error) { return nil, errNoTemp }

// A reader that leaves ends the decoding of a part, though all input of it is
// there by then.
func TestReaderLeavesPart(t *testing.T) {
	x, blob := buildBomb(t, 64<<20, false)
	ctx, cancel := context.WithCancel(t.Context())
	r := New(x, hookedBlob{blob, cancel}, &Options{NewTemp: noTemp})
	defer r.Close()
	if n, err := r.ReadAt(ctx, make([]byte, 5), 60<<20); n != 0 || err != context.Canceled {
		t.Errorf("ReadAt = %d, %v; want %v", n, err, context.Canceled)
	}
}

// Close ends the decoding of a part.
func TestReaderClosesPart(t *testing.T) {
	x, blob := buildBomb(t, 64<<20, false)
	var r *Reader
	r = New(x, hookedBlob{blob, func() { r.close() }}, &Options{NewTemp: noTemp})
	if n, err := r.ReadAt(t.Context(), make([]byte, 5), 60<<20); n != 0 || !errors.Is(err, fs.ErrClosed) {
		t.Errorf("ReadAt = %d, %v; want %v", n, err, fs.ErrClosed)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// A file for a long span is made for its size, and ends soon after its last
// reader has left.
func TestReaderLeavesSpool(t *testing.T) {
	testenv.Slow(t)
	x, blob := buildBomb(t, 64<<20, false)
	file := newTempFile(t, 20*time.Millisecond) // a piece: all would take 5 s
	asked := int64(0)
	r := New(x, samples.Blob(blob), &Options{NewTemp: func(size int64) (TempFile, error) {
		asked = size
		return file, nil
	}})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if n, err := r.ReadAt(ctx, make([]byte, 5), 60<<20); n != 0 || err != context.DeadlineExceeded {
		t.Errorf("ReadAt = %d, %v", n, err)
	}
	if asked != r.Size() {
		t.Errorf("a file of %d bytes was asked for, want %d", asked, r.Size())
	}
	for was := int64(-1); was != file.written.Load(); time.Sleep(spool.Linger) {
		was = file.written.Load()
	}
	if n := file.written.Load(); n > r.Size()*3/4 {
		t.Errorf("%d bytes of %d were written after the last reader had left", n, r.Size())
	}
	if err := r.Close(); err != nil || file.closed.Load() != 1 {
		t.Errorf("Close: %v, and the file was closed %d times", err, file.closed.Load())
	}
}

// Close does not wait for the memory for a large window that others have.
func TestReaderClosesWaiting(t *testing.T) {
	testenv.Slow(t)
	x, blob := buildBomb(t, 64<<20, true)
	open := func() (*Reader, *tempFile) {
		file := newTempFile(t, 50*time.Millisecond)
		return New(x, samples.Blob(blob), &Options{NewTemp: func(int64) (TempFile, error) { return file, nil }}), file
	}
	has, hasFile := open()
	defer has.Close()
	waits, waitsFile := open()
	for _, r := range []*Reader{has, waits} {
		go r.ReadAt(t.Context(), make([]byte, 5), 60<<20) // fails with Close
	}
	// Both get as far as the small window goes, one of them further.
	for begun := time.Now(); hasFile.written.Load() < 11<<20 && waitsFile.written.Load() < 11<<20; {
		if time.Since(begun) > time.Minute {
			t.Fatal("neither gets on")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if waitsFile.written.Load() > hasFile.written.Load() {
		has, waits = waits, has
	}
	defer has.Close()
	done := make(chan error)
	go func() { done <- waits.Close() }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("Close waits for another reader")
	}
}
