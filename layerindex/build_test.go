package layerindex

import (
	"archive/tar"
	"bytes"
	stdgzip "compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// memBlob is a verified blob in memory.
type memBlob []byte

func (b memBlob) Size() int64 { return int64(len(b)) }

func (b memBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return bytes.NewReader(b).ReadAt(p, off)
}

// testTar returns a tar with files of about size bytes in all, and with one
// entry of every other kind.
func testTar(t testing.TB, size int) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	rng := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, 1<<16)
	for i := range text {
		text[i] = "etaoin shrdlu\n"[rng.IntN(14)]
	}
	add := func(h *tar.Header, content []byte) {
		t.Helper()
		h.Size = int64(len(content))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	add(&tar.Header{Typeflag: tar.TypeDir, Name: "etc/", Mode: 0o755}, nil)
	for i := 0; buf.Len() < size; i++ {
		var content []byte
		for n := rng.IntN(1 + size/8); len(content) < n; {
			at := rng.IntN(len(text))
			content = append(content, text[at:min(len(text), at+n-len(content), at+2000)]...)
		}
		name := fmt.Sprintf("etc/dir%d/file%d", i%3, i)
		add(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Uid: i, ModTime: time.Unix(1_600_000_000+int64(i*i), 0)}, content)
	}
	add(&tar.Header{Typeflag: tar.TypeSymlink, Name: "etc/link", Linkname: "dir0/file0", Mode: 0o777}, nil)
	add(&tar.Header{Typeflag: tar.TypeLink, Name: "etc/hard", Linkname: "etc/dir0/file0"}, nil)
	add(&tar.Header{Typeflag: tar.TypeChar, Name: "dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3}, nil)
	add(&tar.Header{Typeflag: tar.TypeBlock, Name: "dev/sda", Mode: 0o660, Devmajor: 8}, nil)
	add(&tar.Header{Typeflag: tar.TypeFifo, Name: "run/pipe", Mode: 0o4600}, nil)
	add(&tar.Header{Typeflag: tar.TypeReg, Name: "caps", Mode: 0o755, PAXRecords: map[string]string{
		"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00", "SCHILY.xattr.user.b": "2"}}, []byte("x"))
	add(&tar.Header{Typeflag: tar.TypeReg, Name: "caps2", PAXRecords: map[string]string{"SCHILY.xattr.user.b": "2"}}, nil)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := stdgzip.NewWriter(&buf)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// zstdFrames compresses b in frames of size bytes each.
func zstdFrames(t testing.TB, b []byte, size int) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var out []byte
	for part := range slices.Chunk(b, size) {
		out = w.EncodeAll(part, out)
	}
	return out
}

// claim is what a truthful image says of a layer.
func claim(blob, tar []byte) Layer {
	return Layer{Digest: digest.FromBytes(blob), Size: int64(len(blob)), DiffID: digest.FromBytes(tar)}
}

func mustBuild(t testing.TB, blob, tar []byte, opts *BuildOptions) *Index {
	t.Helper()
	x, err := Build(context.Background(), claim(blob, tar), bytes.NewReader(blob), opts)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// codecs are the wrappings of a layer.
var codecs = []struct {
	name string
	wrap func(t testing.TB, tar []byte) []byte
	want Codec
}{
	{"plain", func(_ testing.TB, b []byte) []byte { return b }, Plain},
	{"gzip", gzipped, Gzip},
	{"gzip of several members", func(t testing.TB, b []byte) []byte {
		return slices.Concat(gzipped(t, b[:len(b)/3]), gzipped(t, nil), gzipped(t, b[len(b)/3:]))
	}, Gzip},
	{"gzip with garbage behind it", func(t testing.TB, b []byte) []byte { return append(gzipped(t, b), "garbage"...) }, Gzip},
	{"zstd", func(t testing.TB, b []byte) []byte { return zstdFrames(t, b, len(b)) }, Zstd},
	{"zstd of several frames", func(t testing.TB, b []byte) []byte { return zstdFrames(t, b, 100_000) }, Zstd},
	{"zstd with a skippable frame first", func(t testing.TB, b []byte) []byte {
		return slices.Concat([]byte{0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 'a', 'b', 'c'}, zstdFrames(t, b, 1<<20))
	}, Zstd},
}

func TestBuild(t *testing.T) {
	tarBytes := testTar(t, 1<<20)
	for _, c := range codecs {
		t.Run(c.name, func(t *testing.T) {
			blob := c.wrap(t, tarBytes)
			x := mustBuild(t, blob, tarBytes, &BuildOptions{SpanSize: 128 << 10})
			if x.Codec() != c.want {
				t.Errorf("codec %v, want %v", x.Codec(), c.want)
			}
			if x.Digest() != digest.FromBytes(blob) || x.DiffID() != digest.FromBytes(tarBytes) ||
				x.BlobSize() != int64(len(blob)) || x.Size() != int64(len(tarBytes)) {
				t.Errorf("index of %s %d, tar %s %d", x.Digest(), x.BlobSize(), x.DiffID(), x.Size())
			}
			checkChunks(t, x, blob)
			checkEntries(t, x, blob, tarBytes)
		})
	}
}

// TestBuildSmall has layers with nothing, and with nothing to read, in them.
func TestBuildSmall(t *testing.T) {
	var dirs bytes.Buffer
	w := tar.NewWriter(&dirs)
	if err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "a/"}), w.Close()); err != nil {
		t.Fatal(err)
	}
	for name, tarBytes := range map[string][]byte{"nothing": nil, "end of archive": make([]byte, 1024), "a directory": dirs.Bytes()} {
		for _, blob := range [][]byte{tarBytes, gzipped(t, tarBytes), zstdFrames(t, append([]byte{}, tarBytes...), 1<<20)} {
			if len(blob) == 0 && len(tarBytes) > 0 {
				t.Fatalf("%s: nothing was packed", name)
			}
			x := mustBuild(t, blob, tarBytes, nil)
			checkChunks(t, x, blob)
			checkEntries(t, x, blob, tarBytes)
			if err := readEverything(encoded(t, x)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func checkChunks(t *testing.T, x *Index, blob []byte) {
	t.Helper()
	var want []byte
	for part := range slices.Chunk(blob, int(x.ChunkSize())) {
		sum := sha256.Sum256(part)
		want = append(want, sum[:]...)
	}
	got, err := x.ChunkSums()
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("chunk sums %x, %v, want %x", got, err, want)
	}
}

// checkEntries holds an index against archive/tar: names and contents, the
// latter through a Reader.
func checkEntries(t *testing.T, x *Index, blob, tarBytes []byte) {
	t.Helper()
	entries, err := x.EntriesWithDigests()
	if err != nil {
		t.Fatal(err)
	}
	r := NewReader(x, memBlob(blob), nil)
	want := tar.NewReader(bytes.NewReader(tarBytes))
	n := 0
	for e := range entries {
		n++
		h, err := want.Next()
		if err != nil {
			t.Fatal(err)
		}
		if e.Name != h.Name || e.Linkname != h.Linkname || byte(e.Type) != h.Typeflag || int64(e.Mode) != h.Mode || int(e.UID) != h.Uid ||
			e.ModSec != h.ModTime.Unix() || int(e.ModNsec) != h.ModTime.Nanosecond() || int64(e.Major) != h.Devmajor || int64(e.Minor) != h.Devminor {
			t.Errorf("entry %+v, want %+v", e, h)
		}
		for _, a := range e.Xattrs {
			if h.PAXRecords["SCHILY.xattr."+a.Name] != a.Value {
				t.Errorf("%s: attribute %s=%q", e.Name, a.Name, a.Value)
			}
		}
		content, err := io.ReadAll(want)
		if err != nil {
			t.Fatal(err)
		}
		if e.Type != TypeReg {
			continue
		}
		if got := readAll(t, r, e.Off, e.Size); !bytes.Equal(got, content) {
			t.Errorf("%s: content differs", e.Name)
		}
		if sum := sha256.Sum256(content); !e.HasDigest || e.Digest != sum {
			t.Errorf("%s: digest %x, want %x", e.Name, e.Digest, sum)
		}
	}
	if _, err := want.Next(); err != io.EOF || n != x.NumEntries() {
		t.Errorf("%d entries, %d counted, then %v in the tar", n, x.NumEntries(), err)
	}
}

func readAll(t *testing.T, r *Reader, off, size int64) []byte {
	t.Helper()
	p := make([]byte, size)
	if n, err := r.ReadAt(context.Background(), p, off); n != len(p) || err != nil && err != io.EOF {
		t.Fatalf("ReadAt(%d bytes, %d) = %d, %v", size, off, n, err)
	}
	return p
}

// TestBuildRefuses changes one thing at a time of a good layer.
func TestBuildRefuses(t *testing.T) {
	tarBytes := testTar(t, 300_000)
	blob := gzipped(t, tarBytes)
	broken := slices.Clone(tarBytes)
	broken[512+10] ^= 1 // in the second header
	cut := blob[:len(blob)-9]
	tests := []struct {
		name  string
		claim Layer
		blob  []byte
		want  error
		text  string
	}{
		{"other digest", Layer{digest.FromString("x"), int64(len(blob)), digest.FromBytes(tarBytes)}, blob, ErrDigest, "its digest is"},
		{"other diff_id", Layer{digest.FromBytes(blob), int64(len(blob)), digest.FromString("x")}, blob, ErrDiffID, "its digest is"},
		{"ends early", claim(blob, tarBytes), blob[:1000], ErrDigest, "ends after 1000 of"},
		{"goes on", claim(blob, tarBytes), append(slices.Clone(blob), 0), ErrDigest, "more than"},
		{"a flipped bit", claim(blob, tarBytes), flip(blob, len(blob)/2), ErrDigest, "its digest is"},
		{"truncated gzip", claim(cut, tarBytes), cut, io.ErrUnexpectedEOF, "at byte"},
		{"gzip with a wrong CRC", claim(flip(blob, len(blob)-6), tarBytes), flip(blob, len(blob)-6), ErrCompressed, "at byte"},
		{"bad tar header", claim(gzipped(t, broken), broken), gzipped(t, broken), ErrTar, ""},
		{"tar that ends in a file", claim(gzipped(t, tarBytes[:1500]), tarBytes[:1500]), gzipped(t, tarBytes[:1500]), io.ErrUnexpectedEOF, ""},
		{"text", claim([]byte(strings.Repeat("no tar ", 200)), []byte(strings.Repeat("no tar ", 200))), []byte(strings.Repeat("no tar ", 200)), ErrTar, ""},
		{"xz", claim([]byte("\xfd7zXZ\x00..."), nil), []byte("\xfd7zXZ\x00..."), ErrCompressed, "xz"},
		{"sha512", Layer{digest.Digest("sha512:" + strings.Repeat("0", 128)), int64(len(blob)), digest.FromBytes(tarBytes)}, blob, nil, "sha512"},
		{"no diff_id", Layer{Digest: digest.FromBytes(blob), Size: int64(len(blob))}, blob, nil, `"" is not a sha256`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x, err := Build(context.Background(), tt.claim, bytes.NewReader(tt.blob), nil)
			if x != nil || err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("Build = %v, %v; want %v and %q", x, err, tt.want, tt.text)
			}
		})
	}
}

func flip(b []byte, at int) []byte {
	b = slices.Clone(b)
	b[at] ^= 0x10
	return b
}

// TestBuildRefusesEveryDamage cuts a small layer at every byte and flips a
// bit of every byte. With a digest that fits the damaged bytes, only what the
// layer itself says can tell.
func TestBuildRefusesEveryDamage(t *testing.T) {
	tarBytes := testTar(t, 2000)
	for _, wrap := range []func(testing.TB, []byte) []byte{gzipped, func(t testing.TB, b []byte) []byte { return zstdFrames(t, b, 1500) }} {
		blob := wrap(t, tarBytes)
		for i := range blob {
			for _, bad := range [][]byte{blob[:i], flip(blob, i)} {
				if x, err := Build(context.Background(), claim(blob, tarBytes), bytes.NewReader(bad), nil); !errors.Is(err, ErrDigest) {
					t.Fatalf("byte %d, digest of the whole: Build = %v, %v", i, x, err)
				}
				// A bit of a gzip header that means nothing may change.
				x, err := Build(context.Background(), claim(bad, tarBytes), bytes.NewReader(bad), nil)
				if err == nil && len(bad) < len(blob) {
					t.Fatalf("cut at byte %d: built %v", i, x)
				}
			}
		}
	}
}

// TestBuildPadding has a layer whose diff_id is that of the tar padded to a
// record, as zstd:chunked layers of some tools have it.
func TestBuildPadding(t *testing.T) {
	padded := testTar(t, 5000)
	padded = append(padded, make([]byte, padding-len(padded)%padding)...)
	for _, cut := range []int{512, 7 * 1024, padding} {
		blob := gzipped(t, padded[:len(padded)-cut])
		if bytes.Count(padded[len(padded)-cut:], []byte{0}) != cut {
			continue // not all of it is padding
		}
		x := mustBuild(t, blob, padded, nil)
		if x.DiffID() != digest.FromBytes(padded) {
			t.Errorf("%d bytes cut off: diff_id %s", cut, x.DiffID())
		}
	}
	blob := gzipped(t, padded)
	long := append(slices.Clone(padded), make([]byte, padding+512)...)
	if _, err := Build(context.Background(), claim(blob, long), bytes.NewReader(blob), nil); !errors.Is(err, ErrDiffID) {
		t.Errorf("more padding than a record: %v", err)
	}
}

func TestBuildSourceFails(t *testing.T) {
	tarBytes := testTar(t, 300_000)
	blob := gzipped(t, tarBytes)
	broken := errors.New("line cut")
	src := io.MultiReader(bytes.NewReader(blob[:len(blob)/2]), iotest.ErrReader(broken))
	if _, err := Build(context.Background(), claim(blob, tarBytes), src, nil); !errors.Is(err, broken) {
		t.Errorf("Build = %v, want %v", err, broken)
	}
	ctx, cancel := context.WithCancel(context.Background())
	opts := &BuildOptions{ChunkSize: 4096, Progress: func(in int64) {
		if in > 20_000 {
			cancel()
		}
	}}
	if _, err := Build(ctx, claim(blob, tarBytes), bytes.NewReader(blob), opts); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled Build = %v", err)
	}
}
