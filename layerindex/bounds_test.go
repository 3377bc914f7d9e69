package layerindex

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgfs/imgfs/layerindex/internal/spool"
	"github.com/opencontainers/go-digest"
)

// A frameWriter makes a zstd frame, RFC 8878, of blocks that are stored or of
// one byte over and over.
type frameWriter struct{ bytes.Buffer }

// newFrame begins a frame with a window of at least 128 MiB or of 1 MiB.
func newFrame(large bool) *frameWriter {
	f := new(frameWriter)
	window := byte(10 << 3)
	if large {
		window = 17 << 3
	}
	f.Write([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, window})
	return f
}

func (f *frameWriter) block(kind, size int, last bool, content ...byte) {
	n := size<<3 | kind<<1
	if last {
		n |= 1
	}
	f.Write([]byte{byte(n), byte(n >> 8), byte(n >> 16)})
	f.Write(content)
}

// bomb returns a tar with a file of n zeros, and that as one small zstd frame.
func bomb(t testing.TB, n int, large bool) (tarSize int64, blob []byte, l Layer) {
	t.Helper()
	var head bytes.Buffer
	if err := tar.NewWriter(&head).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "zeros", Mode: 0o644, Size: int64(n)}); err != nil {
		t.Fatal(err)
	}
	const piece = 128 << 10
	n = (n + piece - 1) / piece * piece // and what is left over ends the tar
	sum := sha256.New()
	sum.Write(head.Bytes())
	f := newFrame(large)
	f.block(0, head.Len(), false, head.Bytes()...)
	if _, err := io.CopyN(sum, zeros{}, int64(n+piece)); err != nil {
		t.Fatal(err)
	}
	for at := 0; at <= n; at += piece {
		f.block(1, piece, at == n, 0)
	}
	blob = f.Bytes()
	l = Layer{Digest: digest.FromBytes(blob), Size: int64(len(blob)), DiffID: digest.NewDigest(digest.SHA256, sum)}
	return int64(head.Len() + n + piece), blob, l
}

func buildBomb(t testing.TB, n int, large bool) (*Index, []byte) {
	t.Helper()
	_, blob, l := bomb(t, n, large)
	x, err := Build(t.Context(), l, bytes.NewReader(blob), nil)
	if err != nil {
		t.Fatal(err)
	}
	return x, blob
}

// A layer may have as many bytes as it is allowed, and not one more.
func TestBuildMaxSize(t *testing.T) {
	tarBytes := testTar(t, 300_000)
	size := int64(len(tarBytes))
	for _, c := range codecs {
		t.Run(c.name, func(t *testing.T) {
			blob := c.wrap(t, tarBytes)
			for _, tt := range []struct {
				most int64
				want error
			}{{0, nil}, {size, nil}, {size + 1, nil}, {size - 1, ErrTooBig}, {1, ErrTooBig}} {
				x, err := Build(t.Context(), claim(blob, tarBytes), bytes.NewReader(blob), &BuildOptions{MaxSize: tt.most})
				if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) || (x == nil) != (err != nil) {
					t.Errorf("at most %d of %d bytes: got error %v, want %v", tt.most, size, err, tt.want)
				}
			}
		})
	}
}

// An entry that says that it goes beyond the bound is refused by its header:
// nothing of its content is waited for.
func TestBuildMaxSizeByHeader(t *testing.T) {
	var head bytes.Buffer
	w := tar.NewWriter(&head)
	if err := w.WriteHeader(&tar.Header{Name: "big", Mode: 0o644, Size: 10 << 20}); err != nil {
		t.Fatal(err)
	}
	src := &endless{Reader: io.MultiReader(&head, zeros{})}
	l := Layer{Digest: digest.FromString("any"), Size: 1 << 40, DiffID: digest.FromString("any")}
	_, err := Build(t.Context(), l, src, &BuildOptions{MaxSize: 10 << 20})
	var where *FormatError
	if !errors.Is(err, ErrTooBig) || !errors.As(err, &where) || where.Entry != "big" {
		t.Errorf("got error %v, want ErrTooBig of the entry big", err)
	}
	if most := int64(2*piecesInFlight+2) * pieceSize; src.n > most {
		t.Errorf("%d bytes were read, want the header and what the stages have in hand, %d", src.n, most)
	}
}

// An endless reader counts what is read of it.
type endless struct {
	io.Reader
	n int64
}

func (e *endless) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	e.n += int64(n)
	return n, err
}

// A stream that does not end is read no further than the byte that is too much,
// but for what the stages have in hand.
func TestBuildEndless(t *testing.T) {
	frame := newFrame(false)
	frame.block(1, 128<<10, false, 0)
	for name, src := range map[string]io.Reader{
		"tar":  zeros{},
		"zstd": io.MultiReader(bytes.NewReader(frame.Bytes()), &repeated{p: frame.Bytes()[6:]}),
	} {
		t.Run(name, func(t *testing.T) {
			e := &endless{Reader: src}
			l := Layer{Digest: digest.FromString("x"), Size: 1 << 50, DiffID: digest.FromString("y")}
			_, err := Build(t.Context(), l, e, &BuildOptions{MaxSize: 32 << 20})
			if !errors.Is(err, ErrTooBig) {
				t.Errorf("got error %v, want %v", err, ErrTooBig)
			}
			if e.n > 64<<20 {
				t.Errorf("%d bytes were read", e.n)
			}
		})
	}
}

// A repeated reader gives p over and over.
type repeated struct {
	p  []byte
	at int
}

func (r *repeated) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = r.p[r.at]
		r.at = (r.at + 1) % len(r.p)
	}
	return len(p), nil
}

// A hookedBlob calls hook with each read.
type hookedBlob struct {
	memBlob
	hook func()
}

func (b hookedBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := b.memBlob.ReadAt(ctx, p, off)
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
	f, err := spool.InDir(t.TempDir())()
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
	r := NewReader(x, hookedBlob{blob, cancel}, &ReaderOptions{NewTemp: noTemp})
	defer r.Close()
	if n, err := r.ReadAt(ctx, make([]byte, 5), 60<<20); n != 0 || err != context.Canceled {
		t.Errorf("ReadAt = %d, %v; want %v", n, err, context.Canceled)
	}
}

// Close ends the decoding of a part.
func TestReaderClosesPart(t *testing.T) {
	x, blob := buildBomb(t, 64<<20, false)
	var r *Reader
	r = NewReader(x, hookedBlob{blob, func() { r.close() }}, &ReaderOptions{NewTemp: noTemp})
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
	x, blob := buildBomb(t, 64<<20, false)
	file := newTempFile(t, 20*time.Millisecond) // a piece: all would take 5 s
	asked := int64(0)
	r := NewReader(x, memBlob(blob), &ReaderOptions{NewTemp: func(size int64) (TempFile, error) {
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
	x, blob := buildBomb(t, 64<<20, true)
	open := func() (*Reader, *tempFile) {
		file := newTempFile(t, 50*time.Millisecond)
		return NewReader(x, memBlob(blob), &ReaderOptions{NewTemp: func(int64) (TempFile, error) { return file, nil }}), file
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
