package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote/beneath"
)

const testChunk = 4096

// randomBytes returns n bytes that depend on n and seed alone.
func randomBytes(n int, seed uint64) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1})
	p := make([]byte, n)
	r.Read(p)
	return p
}

func chunksOf(data []byte, size int64) Chunks {
	c := Chunks{Size: size}
	for len(data) > 0 {
		n := min(size, int64(len(data)))
		sum := sha256.Sum256(data[:n])
		c.Sums = append(c.Sums, sum[:]...)
		data = data[n:]
	}
	return c
}

// A fakeBlob is a source that notes what it is asked, and fails the test if
// it is asked for what does not exist, or twice at once for the same bytes.
type fakeBlob struct {
	t    testing.TB
	data []byte

	// answer, if not nil, replaces the answer to request i, from 0. p holds
	// the right bytes.
	answer func(ctx context.Context, i int, p []byte) (int, error)

	mu       sync.Mutex
	requests []span
	active   []span
}

type span struct{ off, end int64 }

func (s span) String() string { return fmt.Sprintf("[%d,%d)", s.off, s.end) }

func (b *fakeBlob) Digest() digest.Digest { return digest.FromBytes(b.data) }

func (b *fakeBlob) Size() int64 { return int64(len(b.data)) }

func (b *fakeBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	want := span{off, off + int64(len(p))}
	if off < 0 || len(p) == 0 || want.end > b.Size() {
		b.t.Errorf("source of %d bytes asked for %v", b.Size(), want)
		return 0, io.ErrUnexpectedEOF
	}
	b.mu.Lock()
	for _, a := range b.active {
		if a.off < want.end && want.off < a.end {
			b.t.Errorf("source asked for %v while it gives %v", want, a)
		}
	}
	i := len(b.requests)
	b.requests = append(b.requests, want)
	b.active = append(b.active, want)
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for i, a := range b.active {
			if a == want {
				b.active = append(b.active[:i], b.active[i+1:]...)
				return
			}
		}
	}()
	copy(p, b.data[off:])
	if b.answer != nil {
		return b.answer(ctx, i, p)
	}
	return len(p), nil
}

// asked returns the requests up to now.
func (b *fakeBlob) asked() []span {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]span(nil), b.requests...)
}

func openCache(t testing.TB, dir string, opts *Options) *Cache {
	t.Helper()
	c, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func cached(t testing.TB, c *Cache, src *fakeBlob) *Blob {
	t.Helper()
	b, err := c.Blob(src, chunksOf(src.data, testChunk))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// checkRead reads n bytes at off, all of which must exist.
func checkRead(t testing.TB, b *Blob, src *fakeBlob, off, n int64) {
	t.Helper()
	p := make([]byte, n)
	got, err := b.ReadAt(t.Context(), p, off)
	if err != nil || int64(got) != n {
		t.Fatalf("ReadAt(%d bytes, %d) = %d, %v", n, off, got, err)
	}
	if !bytes.Equal(p, src.data[off:off+n]) {
		t.Fatalf("ReadAt(%d bytes, %d) gave wrong bytes", n, off)
	}
}

// checkTmp checks that nothing unfinished lies in the cache.
func checkTmp(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, tmpDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("left in tmp: %s", e.Name())
	}
}

func blobPath(dir string, src *fakeBlob) string {
	return filepath.Join(dir, blobsDir, "sha256", src.Digest().Encoded())
}

// evict removes chunks from a blob file as another program would, by what
// docs/cache-format.md says. It is killed after some steps if stop says so.
func evict(path string, chunks []int64, stop func(step int) bool) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := flock(f, unix.LOCK_EX); err != nil {
		return err
	}
	l, epoch, ok := readFooter(f)
	if !ok || epoch == 0 || !isAt(f, path) {
		return nil
	}
	step := 0
	do := func(err error) bool { step++; return err != nil || stop != nil && stop(step) }
	if do(writeEpoch(f, l, epoch+1)) {
		return nil
	}
	for _, k := range chunks {
		if _, err := f.WriteAt(make([]byte, wordSize), l.word(k)); do(err) {
			return err
		}
	}
	for _, k := range chunks {
		if err := punch(f, k*l.chunk, min(l.chunk, l.word(0)-k*l.chunk)); do(err) {
			return err
		}
	}
	return nil
}

// filesAt opens a directory without checking whether it is a cache.
func filesAt(t testing.TB, dir string) *beneath.Dir {
	t.Helper()
	d, err := beneath.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// at returns the path of a name in the directory.
func (c *Cache) at(name string) string { return filepath.Join(c.path, name) }

// isAt reports whether the open file f is the one at path.
func isAt(f *os.File, path string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(path)
	return err == nil && os.SameFile(open, named)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// replaceFile gives the file at path the content data at once.
func replaceFile(path string, data []byte) error {
	next := path + ".next"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}
