package cache

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/beneath"
	"github.com/imgfs/imgfs/testdata/testenv"
)

const testChunk = 4096

// randomBytes returns n bytes that depend on n and seed alone.
func randomBytes(n int, seed uint64) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1})
	p := make([]byte, n)
	r.Read(p)
	return p
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

// smallDisk returns a directory on a file system of n bytes.
func smallDisk(t testing.TB, n int) string {
	t.Helper()
	dir := t.TempDir()
	testenv.SmallDisk(t, dir, n)
	return filepath.Join(dir, "cache")
}

// warnings notes what is warned of.
type warnings struct {
	mu  sync.Mutex
	all []string
}

func (w *warnings) warnf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, fmt.Sprintf(format, args...))
}

func (w *warnings) check(t testing.TB, parts ...string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.all) != 1 {
		t.Fatalf("warned %d times, want once: %q", len(w.all), w.all)
	}
	for _, p := range parts {
		if !strings.Contains(w.all[0], p) {
			t.Errorf("warning %q does not say %q", w.all[0], p)
		}
	}
}

// fillDisk leaves about n bytes of a small disk.
func fillDisk(t testing.TB, dir string, n int64) {
	t.Helper()
	f, err := os.Create(filepath.Join(filepath.Dir(dir), "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := testenv.Allocate(f, 0, testenv.Free(t, f.Name())-n); err != nil {
		t.Fatal(err)
	}
}

// age makes a file look as if it was last written some time ago.
func age(t testing.TB, path string, ago time.Duration) {
	t.Helper()
	at := time.Now().Add(-ago)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

// addFile writes a file of 5000 bytes below a cache directory.
func addFile(t testing.TB, dir, name string, ago time.Duration) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	age(t, path, ago)
	return path
}

// files returns the paths of all files below a cache directory, but for those
// that are always there.
func files(t testing.TB, dir string) (names []string) {
	t.Helper()
	inv, err := walk(filesAt(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range inv.files {
		if f.kind != kindSelf && !strings.HasPrefix(f.name, "verified/") {
			names = append(names, strings.Replace(f.name, "sha256/", "", 1))
		}
	}
	slices.Sort(names)
	return names
}

// du returns what du says of a directory.
func du(t testing.TB, dir string) int64 {
	t.Helper()
	// What goes away while du looks makes it exit with 1.
	out, _ := exec.Command("du", "-s", "-B1", dir).Output()
	text, _, _ := strings.Cut(string(out), "\t")
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("du says %q: %v", out, err)
	}
	return n
}

func flipAt(off int64) func(f *os.File) error {
	return func(f *os.File) error {
		var b [1]byte
		if _, err := f.ReadAt(b[:], off); err != nil {
			return err
		}
		b[0] ^= 1
		_, err := f.WriteAt(b[:], off)
		return err
	}
}

// A readerFunc is a Reader.
type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A fakeSource has one manifest, which its name resolves to.
type fakeSource struct {
	t       testing.TB
	name    string
	content string
	err     error  // what Resolve and Fetch answer instead
	wrong   string // what Fetch gives instead

	resolved, fetched int
}

func newFakeSource(t testing.TB, name, content string) *fakeSource {
	return &fakeSource{t: t, name: name, content: content}
}

func (s *fakeSource) Name() string { return s.name }

func (s *fakeSource) Repository() string {
	repo, _, _ := strings.Cut(s.name, ":")
	return repo
}

func (s *fakeSource) desc() ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest,
		Digest:    digest.FromString(s.content),
		Size:      int64(len(s.content)),
	}
}

func (s *fakeSource) Resolve(context.Context) (ocispec.Descriptor, error) {
	s.resolved++
	if s.err != nil {
		return ocispec.Descriptor{}, s.err
	}
	return s.desc(), nil
}

func (s *fakeSource) Fetch(_ context.Context, desc ocispec.Descriptor) ([]byte, error) {
	s.fetched++
	switch {
	case s.err != nil:
		return nil, s.err
	case s.wrong != "":
		return []byte(s.wrong), nil
	case desc.Digest == ocispec.DescriptorEmptyJSON.Digest:
		return ocispec.DescriptorEmptyJSON.Data, nil
	}
	return []byte(s.content), nil
}

func (s *fakeSource) Blob(desc ocispec.Descriptor) (remote.Blob, error) {
	return &claimedBlob{digest: desc.Digest, size: desc.Size}, nil
}

func damage(t testing.TB, path string, do func(*os.File) error) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := do(f); err != nil {
		t.Fatal(err)
	}
}

func usage(t testing.TB, c interface{ Usage() (int64, error) }) int64 {
	t.Helper()
	n, err := c.Usage()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// fill puts n chunks of src on disk, last used age seconds ago. The chunks
// begin with first.
func fill(t testing.TB, dir string, src *fakeBlob, first, n int64, age int) {
	t.Helper()
	l, path := layout{size: src.Size(), chunk: testChunk}, blobPath(dir, src)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, _, ok := readFooter(f); !ok {
		if _, err := f.WriteAt(l.encodeFooter(newEpoch()), l.footer()); err != nil {
			t.Fatal(err)
		}
	}
	for k := first; k < first+n; k++ {
		off, end := l.bounds(k)
		if _, err := f.WriteAt(src.data[off:end], off); err != nil {
			t.Fatal(err)
		}
		if err := l.setWord(f, k, stamp()-uint32(age)); err != nil {
			t.Fatal(err)
		}
	}
}

// held returns the chunks of src that are on disk, as a bit each.
func held(dir string, src *fakeBlob) (chunks uint64) {
	f, err := os.Open(blobPath(dir, src))
	if err != nil {
		return 0
	}
	defer f.Close()
	l, epoch, ok := readFooter(f)
	if !ok || epoch == 0 {
		return 0
	}
	for k, w := range l.words(f, 0, l.chunks()) {
		if w != 0 {
			chunks |= 1 << k
		}
	}
	return chunks
}

// limit gives a directory a budget that leaves room bytes.
func limit(t testing.TB, d *directory, room int64) {
	t.Helper()
	// The ledger takes its block now.
	if err := d.budget.locked(func() error { _, err := d.budget.recount(); return err }); err != nil {
		t.Fatal(err)
	}
	d.setBudget(usage(t, d) + room)
}

type claimedBlob struct {
	fakeBlob
	digest digest.Digest
	size   int64
}

func (b *claimedBlob) Digest() digest.Digest { return b.digest }
func (b *claimedBlob) Size() int64           { return b.size }
