// Package cachetest is what the tests of the cache's packages share: sources that fail a
// test if they are misused, small disks, and files as other programs leave them.
package cachetest

import (
	"context"
	"crypto/sha256"
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
	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
	"github.com/imgfs/imgfs/testdata/testenv"
)

const TestChunk = 4096

// RandomBytes returns n bytes that depend on n and seed alone.
func RandomBytes(n int, seed uint64) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1})
	p := make([]byte, n)
	r.Read(p)
	return p
}

// A FakeBlob is a source that notes what it is asked, and fails the test if
// it is asked for what does not exist, or twice at once for the same bytes.
type FakeBlob struct {
	T    testing.TB
	Data []byte

	// answer, if not nil, replaces the answer to request i, from 0. p holds
	// the right bytes.
	Answer func(ctx context.Context, i int, p []byte) (int, error)

	Mu       sync.Mutex
	requests []Span
	Active   []Span
}

type Span struct{ Off, End int64 }

func (s Span) String() string { return fmt.Sprintf("[%d,%d)", s.Off, s.End) }

func (b *FakeBlob) Digest() digest.Digest { return digest.FromBytes(b.Data) }

func (b *FakeBlob) Size() int64 { return int64(len(b.Data)) }

func (b *FakeBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	want := Span{off, off + int64(len(p))}
	if off < 0 || len(p) == 0 || want.End > b.Size() {
		b.T.Errorf("source of %d bytes asked for %v", b.Size(), want)
		return 0, io.ErrUnexpectedEOF
	}
	b.Mu.Lock()
	for _, a := range b.Active {
		if a.Off < want.End && want.Off < a.End {
			b.T.Errorf("source asked for %v while it gives %v", want, a)
		}
	}
	i := len(b.requests)
	b.requests = append(b.requests, want)
	b.Active = append(b.Active, want)
	b.Mu.Unlock()
	defer func() {
		b.Mu.Lock()
		defer b.Mu.Unlock()
		for i, a := range b.Active {
			if a == want {
				b.Active = append(b.Active[:i], b.Active[i+1:]...)
				return
			}
		}
	}()
	copy(p, b.Data[off:])
	if b.Answer != nil {
		return b.Answer(ctx, i, p)
	}
	return len(p), nil
}

// Asked returns the requests up to now.
func (b *FakeBlob) Asked() []Span {
	b.Mu.Lock()
	defer b.Mu.Unlock()
	return append([]Span(nil), b.requests...)
}

// CheckTmp checks that nothing unfinished lies in the cache.
func CheckTmp(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, directory.Tmp))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("left in tmp: %s", e.Name())
	}
}

// AsCuts has blobs read by cuts that happen to be of one size, TestChunk, where they would be
// read by chunks of one size.
var AsCuts bool

// BlobPath returns where src lies in a cache directory.
func BlobPath(dir string, src *FakeBlob) string {
	path := filepath.Join(dir, directory.Blobs, "sha256", src.Digest().Encoded())
	if AsCuts {
		path += "-" + directory.Key(sha256.Sum256(sumsOf(src.Data)))
	}
	return path
}

// layoutOf returns how the file of src is laid out.
func layoutOf(src *FakeBlob) blobfile.Layout {
	l := blobfile.Layout{Size: src.Size(), Chunk: TestChunk}
	if !AsCuts {
		return l
	}
	t, err := blobfile.NewTable(l.Size, sha256.Sum256(sumsOf(src.Data)), l.Chunks(), l.Bounds)
	if err != nil {
		panic(err) // no such chunks are made
	}
	return blobfile.Layout{Size: l.Size, Table: t}
}

// sumsOf returns the sums of the chunks of data.
func sumsOf(data []byte) (sums []byte) {
	for c := range slices.Chunk(data, TestChunk) {
		sum := sha256.Sum256(c)
		sums = append(sums, sum[:]...)
	}
	return sums
}

// Evict removes chunks from a blob file as another program would, by what
// docs/cache-format.md says. It is killed after some steps if stop says so.
func Evict(path string, chunks []int64, stop func(step int) bool) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := directory.Flock(f, unix.LOCK_EX); err != nil {
		return err
	}
	l, epoch, ok := blobfile.ReadFooter(f)
	if !ok || epoch == 0 || !IsAt(f, path) {
		return nil
	}
	chunks = slices.DeleteFunc(slices.Clone(chunks), func(k int64) bool { return k >= l.Chunks() })
	step := 0
	do := func(err error) bool { step++; return err != nil || stop != nil && stop(step) }
	if do(blobfile.WriteEpoch(f, l, epoch+1)) {
		return nil
	}
	for _, k := range chunks {
		if _, err := f.WriteAt(make([]byte, blobfile.WordSize), l.Word(k)); do(err) {
			return err
		}
	}
	for _, k := range chunks {
		words := l.Words(f, 0, l.Chunks())
		if err := l.PunchAbsent(f, k, func(k int64) bool { return words[k] != 0 }); do(err) {
			return err
		}
	}
	return nil
}

// FilesAt opens a directory without checking whether it is a cache.
func FilesAt(t testing.TB, dir string) *beneath.Dir {
	t.Helper()
	d, err := beneath.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// IsAt reports whether the open file f is the one at path.
func IsAt(f *os.File, path string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(path)
	return err == nil && os.SameFile(open, named)
}

func Exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// ReplaceFile gives the file at path the content data at once.
func ReplaceFile(path string, data []byte) error {
	next := path + ".next"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// SmallDisk returns a directory on a file system of n bytes.
func SmallDisk(t testing.TB, n int) string {
	t.Helper()
	dir := t.TempDir()
	testenv.SmallDisk(t, dir, n)
	return filepath.Join(dir, "cache")
}

// Warnings notes what is warned of.
type Warnings struct {
	mu  sync.Mutex
	All []string
}

func (w *Warnings) Warnf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.All = append(w.All, fmt.Sprintf(format, args...))
}

func (w *Warnings) Check(t testing.TB, parts ...string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.All) != 1 {
		t.Fatalf("warned %d times, want once: %q", len(w.All), w.All)
	}
	for _, p := range parts {
		if !strings.Contains(w.All[0], p) {
			t.Errorf("warning %q does not say %q", w.All[0], p)
		}
	}
}

// FillDisk leaves about n bytes of a small disk.
func FillDisk(t testing.TB, dir string, n int64) {
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

// Age makes a file look as if it was last written some time ago.
func Age(t testing.TB, path string, ago time.Duration) {
	t.Helper()
	at := time.Now().Add(-ago)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

// AddFile writes a file of 5000 bytes below a cache directory.
func AddFile(t testing.TB, dir, name string, ago time.Duration) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	Age(t, path, ago)
	return path
}

// Files returns the paths of all files below a cache directory, but for those
// that are always there.
func Files(t testing.TB, dir string) (names []string) {
	t.Helper()
	inv, err := directory.Walk(FilesAt(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range inv.Files {
		if f.Kind != directory.KindSelf && !strings.HasPrefix(f.Name, "verified/") {
			names = append(names, strings.Replace(f.Name, "sha256/", "", 1))
		}
	}
	slices.Sort(names)
	return names
}

// Du returns what du says of a directory.
func Du(t testing.TB, dir string) int64 {
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

func FlipAt(off int64) func(f *os.File) error {
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

// A ReaderFunc is a Reader.
type ReaderFunc func(p []byte) (int, error)

func (f ReaderFunc) Read(p []byte) (int, error) { return f(p) }

// A fakeSource has one manifest, which its name resolves to.
type fakeSource struct {
	t     testing.TB
	Ref   string
	Body  string
	Err   error  // what Resolve and Fetch answer instead
	Wrong string // what Fetch gives instead

	Resolved, Fetched int
}

func NewFakeSource(t testing.TB, name, content string) *fakeSource {
	return &fakeSource{t: t, Ref: name, Body: content}
}

func (s *fakeSource) Name() string { return s.Ref }

func (s *fakeSource) Repository() string {
	repo, _, _ := strings.Cut(s.Ref, ":")
	return repo
}

func (s *fakeSource) Desc() ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest,
		Digest:    digest.FromString(s.Body),
		Size:      int64(len(s.Body)),
	}
}

func (s *fakeSource) Resolve(context.Context) (ocispec.Descriptor, error) {
	s.Resolved++
	if s.Err != nil {
		return ocispec.Descriptor{}, s.Err
	}
	return s.Desc(), nil
}

func (s *fakeSource) Fetch(_ context.Context, desc ocispec.Descriptor) ([]byte, error) {
	s.Fetched++
	switch {
	case s.Err != nil:
		return nil, s.Err
	case s.Wrong != "":
		return []byte(s.Wrong), nil
	case desc.Digest == ocispec.DescriptorEmptyJSON.Digest:
		return ocispec.DescriptorEmptyJSON.Data, nil
	}
	return []byte(s.Body), nil
}

func (s *fakeSource) Blob(desc ocispec.Descriptor) (remote.Blob, error) {
	return &ClaimedBlob{Sum: desc.Digest, Length: desc.Size}, nil
}

func Damage(t testing.TB, path string, do func(*os.File) error) {
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

func Usage(t testing.TB, c interface{ Usage() (int64, error) }) int64 {
	t.Helper()
	n, err := c.Usage()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Fill puts n chunks of src on disk, last used age seconds ago. The chunks
// begin with first.
func Fill(t testing.TB, dir string, src *FakeBlob, first, n int64, age int) {
	t.Helper()
	l, path := layoutOf(src), BlobPath(dir, src)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, _, ok := blobfile.ReadFooter(f); !ok {
		if err := l.Write(f, blobfile.NewEpoch()); err != nil {
			t.Fatal(err)
		}
	}
	for k := first; k < first+n; k++ {
		off, end := l.Bounds(k)
		if _, err := f.WriteAt(src.Data[off:end], off); err != nil {
			t.Fatal(err)
		}
		if err := l.SetWord(f, k, blobfile.Stamp()-uint32(age)); err != nil {
			t.Fatal(err)
		}
	}
}

// Held returns the chunks of src that are on disk, as a bit each.
func Held(dir string, src *FakeBlob) (chunks uint64) {
	f, err := os.Open(BlobPath(dir, src))
	if err != nil {
		return 0
	}
	defer f.Close()
	l, epoch, ok := blobfile.ReadFooter(f)
	if !ok || epoch == 0 {
		return 0
	}
	for k, w := range l.Words(f, 0, l.Chunks()) {
		if w != 0 {
			chunks |= 1 << k
		}
	}
	return chunks
}

// Limit gives a directory a budget that leaves room bytes.
func Limit(t testing.TB, d *directory.Dir, room int64) {
	t.Helper()
	// The ledger takes its block now.
	if err := d.Room.Locked(func() error { _, err := d.Room.Recount(); return err }); err != nil {
		t.Fatal(err)
	}
	d.SetBudget(Usage(t, d) + room)
}

type ClaimedBlob struct {
	FakeBlob
	Sum    digest.Digest
	Length int64
}

func (b *ClaimedBlob) Digest() digest.Digest { return b.Sum }
func (b *ClaimedBlob) Size() int64           { return b.Length }
