package tarball_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/internal/tarball"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// zeros reads as zero bytes without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// compressed returns what all the readers give, compressed.
func compressed(t *testing.T, open func(io.Writer) io.WriteCloser, parts ...io.Reader) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := open(&buf)
	if _, err := io.Copy(w, io.MultiReader(parts...)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gzipOf(w io.Writer) io.WriteCloser {
	zw, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // a level that there is
	return zw
}

func zstdOf(w io.Writer) io.WriteCloser {
	zw, _ := zstd.NewWriter(w) // nothing that could be wrong
	return zw
}

// headerOf is the header of a file of size bytes.
func headerOf(t *testing.T, name string, size int64) io.Reader {
	t.Helper()
	var buf bytes.Buffer
	if err := tar.NewWriter(&buf).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size}); err != nil {
		t.Fatal(err)
	}
	return &buf
}

// A temp is a temporary file that takes most bytes, and counts.
type temp struct {
	*os.File
	most            int64
	written, opened atomic.Int64
	closed          atomic.Int64
	hook            func()
}

var errFull = errors.New("no room")

func (f *temp) WriteAt(p []byte, off int64) (int, error) {
	if f.hook != nil {
		f.hook()
	}
	if off+int64(len(p)) > f.most {
		return 0, errFull
	}
	f.written.Add(int64(len(p)))
	return f.File.WriteAt(p, off)
}

func (f *temp) Close() error {
	f.closed.Add(1)
	return f.File.Close()
}

// newTemp returns options with a temporary file that takes most bytes.
func newTemp(t *testing.T, most int64) (*temp, *remote.ArchiveOptions) {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	f := &temp{File: file, most: most}
	t.Cleanup(func() { file.Close() })
	return f, &remote.ArchiveOptions{NewTemp: func() (remote.TempFile, error) {
		f.opened.Add(1)
		return f, nil
	}}
}

const mib = 1 << 20

// What does not begin with the header of a tar is not unpacked.
func TestNotAnArchive(t *testing.T) {
	device := func(name string) func(t *testing.T) string { return func(*testing.T) string { return name } }
	content := func(make func(t *testing.T) []byte) func(t *testing.T) string {
		return func(t *testing.T) string { return write(t, make(t)) }
	}
	for name, file := range map[string]func(t *testing.T) string{
		"zero":            device("/dev/zero"),
		"urandom":         device("/dev/urandom"),
		"null":            device("/dev/null"),
		"zeros in gzip":   content(func(t *testing.T) []byte { return compressed(t, gzipOf, io.LimitReader(zeros{}, 64*mib)) }),
		"zeros in zstd":   content(func(t *testing.T) []byte { return compressed(t, zstdOf, io.LimitReader(zeros{}, 64*mib)) }),
		"nothing in gzip": content(func(t *testing.T) []byte { return compressed(t, gzipOf) }),
		"text in gzip": content(func(t *testing.T) []byte {
			return compressed(t, gzipOf, strings.NewReader(strings.Repeat("text", 1000)))
		}),
		"short in gzip":    content(func(t *testing.T) []byte { return compressed(t, gzipOf, strings.NewReader("short")) }),
		"gzip in gzip":     content(func(t *testing.T) []byte { return compressed(t, gzipOf, bytes.NewReader(gzipped(t, example(t)))) }),
		"zstd in gzip":     content(func(t *testing.T) []byte { return compressed(t, gzipOf, bytes.NewReader(zstded(t, example(t)))) }),
		"text":             content(func(*testing.T) []byte { return []byte(strings.Repeat("text", 1000)) }),
		"a wrong checksum": content(func(t *testing.T) []byte { b := example(t); b[0] ^= 1; return b }),
	} {
		t.Run(name, func(t *testing.T) {
			f, opts := newTemp(t, 100*mib)
			a, err := tarball.Open(t.Context(), file(t), opts)
			if err == nil || !strings.Contains(err.Error(), "not a tar archive") {
				t.Errorf("got error %v, want one that says it is no archive", err)
			}
			if err == nil {
				a.Close()
			}
			if f.opened.Load() != 0 {
				t.Errorf("a temporary file was made, and %d bytes written", f.written.Load())
			}
		})
	}
}

// Signed checksums, and those with spaces before them, are right as well.
func TestOldChecksums(t *testing.T) {
	header := example(t)
	for i := range 100 {
		header[i] = 0
	}
	copy(header, "\xe4\xe4") // bytes that count otherwise with a sign
	signed, unsigned := 0, 0
	copy(header[148:156], "        ")
	for _, c := range header[:512] {
		signed += int(int8(c))
		unsigned += int(c)
	}
	for _, sum := range []string{fmt.Sprintf("%6o\x00 ", signed), fmt.Sprintf("%06o\x00 ", unsigned), fmt.Sprintf("%7o\x00", unsigned)} {
		copy(header[148:156], sum)
		a, err := tarball.Open(t.Context(), write(t, gzipped(t, header)), nil)
		if err != nil {
			t.Errorf("checksum %q: %v", sum, err)
			continue
		}
		a.Close()
	}
}

// An archive is unpacked as far as it is one, and no further than allowed.
func TestUnpackBounds(t *testing.T) {
	testenv.Slow(t)
	big := func(size int64) []io.Reader {
		return []io.Reader{headerOf(t, "big", size), io.LimitReader(zeros{}, size)}
	}
	behind := func(n int64) []byte {
		return compressed(t, gzipOf, bytes.NewReader(example(t)), io.LimitReader(zeros{}, n))
	}
	for _, tt := range []struct {
		name    string
		content []byte
		max     int64
		room    int64
		want    error  // nil: any, if there is text
		text    string // "": none
		written int64  // at most
	}{
		{"as much as allowed", compressed(t, gzipOf, big(8*mib)...), 8*mib + 1024, 100 * mib, nil, "", 8*mib + 1024},
		{"a member that is too big", compressed(t, gzipOf, big(8*mib)...), 8 * mib, 100 * mib, remote.ErrTooBig, `"big"`, 0},
		{"a member that claims to be", compressed(t, zstdOf, headerOf(t, "big", 1<<40)), 8 * mib, 100 * mib, remote.ErrTooBig, `"big"`, 0},
		{"many that are too big", compressed(t, zstdOf, append(append(big(3*mib), big(3*mib)...), big(3*mib)...)...), 8 * mib, 100 * mib, remote.ErrTooBig, "8388608", 7 * mib},
		{"no room", compressed(t, gzipOf, big(8*mib)...), 0, 4 * mib, errFull, "temporary file", 4 * mib},
		{"zeros behind it", behind(8 * mib), 1 * mib, 1 * mib, nil, "", mib / 4},
		{"too many", behind(65 * mib), 1 * mib, 1 * mib, nil, "follow the end", mib / 4},
		{"cut", compressed(t, gzipOf, big(mib)...)[:500], 0, 100 * mib, io.ErrUnexpectedEOF, "unexpected EOF", mib},
		{"a wrong checksum of gzip", func() []byte { b := behind(0); b[len(b)-6] ^= 1; return b }(), 0, 100 * mib, gzip.ErrChecksum, "", mib},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, opts := newTemp(t, tt.room)
			opts.MaxSize = tt.max
			a, err := tarball.Open(t.Context(), write(t, tt.content), opts)
			ok := tt.want == nil && tt.text == ""
			switch {
			case ok && err == nil:
				a.Close()
			case ok:
				t.Errorf("got error %v", err)
			case err == nil || !strings.Contains(err.Error(), tt.text):
				t.Errorf("got error %v, want one with %q", err, tt.text)
			case tt.want != nil && !errors.Is(err, tt.want) && !strings.Contains(err.Error(), tt.want.Error()):
				t.Errorf("got error %v, want %v", err, tt.want)
			}
			if n := f.written.Load(); n > tt.written {
				t.Errorf("%d bytes were written, want at most %d", n, tt.written)
			}
			if f.opened.Load() != f.closed.Load() {
				t.Error("the temporary file was not closed")
			}
		})
	}
}

// A context that ends while an archive is being unpacked ends that, though all
// input is there.
func TestUnpackInterrupted(t *testing.T) {
	content := compressed(t, zstdOf, headerOf(t, "big", 64*mib), io.LimitReader(zeros{}, 64*mib))
	ctx, cancel := context.WithCancel(t.Context())
	f, opts := newTemp(t, 100*mib)
	f.hook = cancel
	if _, err := tarball.Open(ctx, write(t, content), opts); err != context.Canceled {
		t.Errorf("got error %v, want %v", err, context.Canceled)
	}
	if n := f.written.Load(); n > 4*mib || f.closed.Load() != 1 {
		t.Errorf("%d bytes were written after that; closed %d times", n, f.closed.Load())
	}
}

// Waiting for a pipe ends with its context: for the other end, and for more.
func TestPipeInterrupted(t *testing.T) {
	content := example(t)
	for name, begin := range map[string]func(t *testing.T, name string){
		"nobody writes": func(*testing.T, string) {},
		"nothing comes": func(t *testing.T, name string) { hold(t, name) },
		"no more comes": func(t *testing.T, name string) {
			if _, err := hold(t, name).Write(content[:1000]); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			pipe := filepath.Join(t.TempDir(), "fifo")
			if err := syscall.Mkfifo(pipe, 0o600); err != nil {
				t.Fatal(err)
			}
			begin(t, pipe)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			_, opts := newTemp(t, 100*mib)
			done := make(chan error, 1)
			go func() {
				_, err := tarball.Open(ctx, pipe, opts)
				done <- err
			}()
			select {
			case err := <-done:
				if err != context.DeadlineExceeded {
					t.Errorf("got error %v, want %v", err, context.DeadlineExceeded)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("it still waits")
			}
		})
	}
}

// hold opens the writing end of a pipe that may have no other, until the test
// ends.
func hold(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// A pipe that is opened late, and brings its bytes slowly, is read all the same.
func TestSlowPipe(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	content := gzipped(t, example(t))
	go func() {
		time.Sleep(100 * time.Millisecond)
		f, err := os.OpenFile(pipe, os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		for i := range 10 {
			time.Sleep(10 * time.Millisecond)
			if _, err := f.Write(content[len(content)*i/10 : len(content)*(i+1)/10]); err != nil {
				t.Error(err)
			}
		}
	}()
	a, err := tarball.Open(t.Context(), pipe, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	checkExample(t, a)
}
