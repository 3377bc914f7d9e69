package build

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
	"github.com/imgfs/imgfs/layerindex/reader"
	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/opencontainers/go-digest"
)

func TestBuild(t *testing.T) {
	testenv.Slow(t)
	tarBytes := samples.Tar(t, 1<<20)
	for _, c := range samples.Codecs {
		t.Run(c.Name, func(t *testing.T) {
			blob := c.Wrap(t, tarBytes)
			x := mustBuild(t, blob, tarBytes, &Options{SpanSize: 128 << 10})
			if x.Codec().String() != c.Want {
				t.Errorf("codec %v, want %v", x.Codec(), c.Want)
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
		for _, blob := range [][]byte{tarBytes, samples.Gzip(t, tarBytes), samples.ZstdFrames(t, append([]byte{}, tarBytes...), 1<<20)} {
			if len(blob) == 0 && len(tarBytes) > 0 {
				t.Fatalf("%s: nothing was packed", name)
			}
			x := mustBuild(t, blob, tarBytes, nil)
			checkChunks(t, x, blob)
			checkEntries(t, x, blob, tarBytes)
			if err := x.Verify(t.Context()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func checkChunks(t *testing.T, x *layerindex.Index, blob []byte) {
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
func checkEntries(t *testing.T, x *layerindex.Index, blob, tarBytes []byte) {
	t.Helper()
	entries, err := x.EntriesWithDigests()
	if err != nil {
		t.Fatal(err)
	}
	r := reader.New(x, samples.Blob(blob), nil)
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
		if e.Type != layerindex.TypeReg {
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

func readAll(t *testing.T, r *reader.Reader, off, size int64) []byte {
	t.Helper()
	p := make([]byte, size)
	if n, err := r.ReadAt(context.Background(), p, off); n != len(p) || err != nil && err != io.EOF {
		t.Fatalf("ReadAt(%d bytes, %d) = %d, %v", size, off, n, err)
	}
	return p
}

// TestBuildRefuses changes one thing at a time of a good layer.
func TestBuildRefuses(t *testing.T) {
	tarBytes := samples.Tar(t, 300_000)
	blob := samples.Gzip(t, tarBytes)
	broken := slices.Clone(tarBytes)
	broken[512+10] ^= 1 // in the second header
	cut := blob[:len(blob)-9]
	tests := []struct {
		name  string
		claim layerindex.Layer
		blob  []byte
		want  error
		text  string
	}{
		{"other digest", layerindex.Layer{Digest: digest.FromString("x"), Size: int64(len(blob)), DiffID: digest.FromBytes(tarBytes)}, blob, layerindex.ErrDigest, "its digest is"},
		{"other diff_id", layerindex.Layer{Digest: digest.FromBytes(blob), Size: int64(len(blob)), DiffID: digest.FromString("x")}, blob, layerindex.ErrDiffID, "its digest is"},
		{"ends early", claim(blob, tarBytes), blob[:1000], layerindex.ErrDigest, "ends after 1000 of"},
		{"goes on", claim(blob, tarBytes), append(slices.Clone(blob), 0), layerindex.ErrDigest, "more than"},
		{"a flipped bit", claim(blob, tarBytes), flip(blob, len(blob)/2), layerindex.ErrDigest, "its digest is"},
		{"truncated gzip", claim(cut, tarBytes), cut, io.ErrUnexpectedEOF, "at byte"},
		{"gzip with a wrong CRC", claim(flip(blob, len(blob)-6), tarBytes), flip(blob, len(blob)-6), layerindex.ErrCompressed, "at byte"},
		{"bad tar header", claim(samples.Gzip(t, broken), broken), samples.Gzip(t, broken), layerindex.ErrTar, ""},
		{"tar that ends in a file", claim(samples.Gzip(t, tarBytes[:1500]), tarBytes[:1500]), samples.Gzip(t, tarBytes[:1500]), io.ErrUnexpectedEOF, ""},
		{"text", claim([]byte(strings.Repeat("no tar ", 200)), []byte(strings.Repeat("no tar ", 200))), []byte(strings.Repeat("no tar ", 200)), layerindex.ErrTar, ""},
		{"xz", claim([]byte("\xfd7zXZ\x00..."), nil), []byte("\xfd7zXZ\x00..."), layerindex.ErrCompressed, "xz"},
		{"sha512", layerindex.Layer{Digest: digest.Digest("sha512:" + strings.Repeat("0", 128)), Size: int64(len(blob)), DiffID: digest.FromBytes(tarBytes)}, blob, nil, "sha512"},
		{"no diff_id", layerindex.Layer{Digest: digest.FromBytes(blob), Size: int64(len(blob))}, blob, nil, `"" is not a sha256`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x, err := Index(context.Background(), tt.claim, bytes.NewReader(tt.blob), nil)
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
	testenv.Slow(t)
	tarBytes := samples.Tar(t, 2000)
	for _, wrap := range []func(testing.TB, []byte) []byte{samples.Gzip, func(t testing.TB, b []byte) []byte { return samples.ZstdFrames(t, b, 1500) }} {
		blob := wrap(t, tarBytes)
		for i := range blob {
			for _, bad := range [][]byte{blob[:i], flip(blob, i)} {
				if x, err := Index(context.Background(), claim(blob, tarBytes), bytes.NewReader(bad), nil); !errors.Is(err, layerindex.ErrDigest) {
					t.Fatalf("byte %d, digest of the whole: Build = %v, %v", i, x, err)
				}
				// A bit of a gzip header that means nothing may change.
				x, err := Index(context.Background(), claim(bad, tarBytes), bytes.NewReader(bad), nil)
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
	padded := samples.Tar(t, 5000)
	padded = append(padded, make([]byte, padding-len(padded)%padding)...)
	for _, cut := range []int{512, 7 * 1024, padding} {
		blob := samples.Gzip(t, padded[:len(padded)-cut])
		if bytes.Count(padded[len(padded)-cut:], []byte{0}) != cut {
			continue // not all of it is padding
		}
		x := mustBuild(t, blob, padded, nil)
		if x.DiffID() != digest.FromBytes(padded) {
			t.Errorf("%d bytes cut off: diff_id %s", cut, x.DiffID())
		}
	}
	blob := samples.Gzip(t, padded)
	long := append(slices.Clone(padded), make([]byte, padding+512)...)
	if _, err := Index(context.Background(), claim(blob, long), bytes.NewReader(blob), nil); !errors.Is(err, layerindex.ErrDiffID) {
		t.Errorf("more padding than a record: %v", err)
	}
}

func TestBuildSourceFails(t *testing.T) {
	tarBytes := samples.Tar(t, 300_000)
	blob := samples.Gzip(t, tarBytes)
	broken := errors.New("line cut")
	src := io.MultiReader(bytes.NewReader(blob[:len(blob)/2]), iotest.ErrReader(broken))
	if _, err := Index(context.Background(), claim(blob, tarBytes), src, nil); !errors.Is(err, broken) {
		t.Errorf("Build = %v, want %v", err, broken)
	}
	ctx, cancel := context.WithCancel(context.Background())
	opts := &Options{ChunkSize: 4096, Progress: func(in int64) {
		if in > 20_000 {
			cancel()
		}
	}}
	if _, err := Index(ctx, claim(blob, tarBytes), bytes.NewReader(blob), opts); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled Build = %v", err)
	}
}

// TestMemberAtBlock has members that end where a tar's header or content does.
func TestMemberAtBlock(t *testing.T) {
	tarBytes := samples.Tar(t, 400_000)
	var blob []byte
	for p := range slices.Chunk(tarBytes, 512*160) {
		blob = append(blob, samples.Gzip(t, p)...)
	}
	x := mustBuild(t, blob, tarBytes, nil)
	if x.NumSpans() < 4 {
		t.Errorf("%d spans for members of 80 KiB", x.NumSpans())
	}
	checkEntries(t, x, blob, tarBytes)
	r := reader.New(x, samples.Blob(blob), nil)
	for off := int64(512 * 160); off < r.Size(); off += 512 * 160 {
		for _, from := range []int64{off - 1, off} {
			n := min(512, r.Size()-from)
			if got := readAll(t, r, from, n); !bytes.Equal(got, tarBytes[from:from+n]) {
				t.Errorf("%d bytes at %d: wrong", n, from)
			}
		}
	}
}
