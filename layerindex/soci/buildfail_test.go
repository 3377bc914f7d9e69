package soci

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/klauspost/compress/zstd"
)

// tarOf makes a tar of entries without content.
func tarOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range headers {
		if err := w.WriteHeader(&headers[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestBuildRefuses: what is not the layer, or no layer that a ztoc can describe, gives
// an error of its kind.
func TestBuildRefuses(t *testing.T) {
	t.Parallel()
	plain := writeTar(t, 100_000)
	blob := member(t, plain, "", 9000)
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	broken := bytes.Clone(blob)
	broken[len(broken)/2] ^= 0x10
	badTar := bytes.Clone(plain)
	badTar[512+150] ^= 1
	at := time.Unix(0, 0)
	sparse := tarOf(t, tar.Header{Name: "x", Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "all"}}, tar.Header{Name: "a", Typeflag: tar.TypeReg, ModTime: at})
	for _, c := range []struct {
		name       string
		layer, src []byte // src is what is read, layer if it is nil
		want       error
	}{
		{"a byte too few", blob, blob[:len(blob)-1], layerindex.ErrDigest},
		{"a byte too many", blob, append(bytes.Clone(blob), 0), layerindex.ErrDigest},
		{"nothing", blob, []byte{}, layerindex.ErrDigest},
		{"another blob", blob, broken, layerindex.ErrDigest},
		{"another blob, which is no tar", plain, badTar, layerindex.ErrDigest},
		{"a damaged stream", broken, nil, layerindex.ErrCompressed},
		{"a stream that is cut off", blob[:len(blob)/2], nil, io.ErrUnexpectedEOF},
		{"a damaged tar", badTar, nil, layerindex.ErrTar},
		{"a damaged tar in gzip", member(t, badTar, "", 9000), nil, layerindex.ErrTar},
		{"a tar that is cut off", plain[:5000], nil, layerindex.ErrTar},
		{"zstd", encoder.EncodeAll(plain, nil), nil, ErrUnsupported},
		{"bzip2", []byte("BZh91AY&SY"), nil, ErrUnsupported},
		{"a global header", sparse, nil, ErrUnsupported},
		{"a continued file", tarOf(t, tar.Header{Name: "a", Typeflag: tar.TypeCont, ModTime: at}), nil, ErrUnsupported},
		{"year 10000", tarOf(t, tar.Header{Name: "a", Typeflag: tar.TypeReg, ModTime: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}), nil, ErrUnsupported},
	} {
		s := &sample{blob: c.layer}
		src := c.src
		if src == nil {
			src = c.layer
		}
		z, err := Build(context.Background(), s.layer(), bytes.NewReader(src), &BuildOptions{SpanSize: 20_000})
		if !errors.Is(err, c.want) || z != nil {
			t.Errorf("%s: %d bytes, %v, want %v", c.name, len(z), err, c.want)
		}
		if c.want != layerindex.ErrDigest && errors.Is(err, layerindex.ErrDigest) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestBuildSparse: a sparse file in pax form is refused by its records.
func TestBuildSparse(t *testing.T) {
	t.Parallel()
	// Version 1.0: the map is before the data, in a block of its own.
	records := "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n21 GNU.sparse.name=a\n29 GNU.sparse.realsize=10000\n"
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range []struct {
		name, content string
		kind          byte
	}{{"PaxHeaders/a", records, 'x'}, {"a", "1\n0\n3\n" + strings.Repeat("\x00", 506) + "abc", '0'}} {
		// archive/tar writes no extended header that it is given: its type is changed.
		if err := w.WriteHeader(&tar.Header{Name: e.name, Typeflag: '0', Size: int64(len(e.content)), Format: tar.FormatUSTAR}); err != nil {
			t.Fatal(err)
		}
		if e.kind == 'x' {
			retype(b.Bytes(), 'x')
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s := &sample{blob: b.Bytes()}
	if _, err := Build(context.Background(), s.layer(), bytes.NewReader(s.blob), nil); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "sparse") {
		t.Error(err)
	}
}

// retype changes the type of the header at the end of a tar, and its checksum.
func retype(b []byte, to byte) {
	h := b[len(b)-512:]
	sum := 0
	h[156] = to
	copy(h[148:156], "        ")
	for _, c := range h {
		sum += int(c)
	}
	for i := 5; i >= 0; i-- {
		h[148+i] = '0' + byte(sum&7)
		sum >>= 3
	}
	h[154] = 0
}

// TestBuildStops: errors of the source and of the context are handed on as they are,
// whatever they come in the midst of.
func TestBuildStops(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	blob := member(t, writeTar(t, 1<<20), "", 50_000)
	s := &sample{blob: blob}
	lost := errors.New("connection lost")
	for n := 0; n < len(blob); n += len(blob) / 7 {
		src := io.MultiReader(bytes.NewReader(blob[:n]), iotest.ErrReader(lost))
		if _, err := Build(context.Background(), s.layer(), src, nil); err != lost {
			t.Errorf("after %d bytes: %v", n, err)
		}
		ctx, end := context.WithCancel(context.Background())
		r := io.MultiReader(bytes.NewReader(blob[:n]), readerFunc(func([]byte) (int, error) { end(); return 0, nil }), bytes.NewReader(blob[n:]))
		if _, err := Build(ctx, s.layer(), r, nil); err != context.Canceled {
			t.Errorf("after %d bytes: %v", n, err)
		}
		end()
	}
	if _, err := Build(context.Background(), s.layer(), bytes.NewReader(blob), &BuildOptions{SpanSize: -1}); err == nil {
		t.Error("a span size of -1 is taken")
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestBuildPieces: it does not matter how the source hands on its bytes.
func TestBuildPieces(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	for _, m := range madeLayers(t) {
		l := m.sample(nil).layer()
		want, err := Build(context.Background(), l, bytes.NewReader(m.blob), &BuildOptions{SpanSize: m.span})
		if err != nil {
			t.Fatal(err)
		}
		for name, src := range map[string]io.Reader{"halves": iotest.HalfReader(bytes.NewReader(m.blob)), "data and EOF": iotest.DataErrReader(bytes.NewReader(m.blob)), "bytes": iotest.OneByteReader(bytes.NewReader(m.blob))} {
			if got, err := Build(context.Background(), l, src, &BuildOptions{SpanSize: m.span}); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, %s: %d bytes of %d, %v", m.name, name, len(got), len(want), err)
			}
		}
		s := m.sample(want)
		x := s.index(t)
		checkEntries(t, x, s.pass(t))
		s.checkContent(t, x)
	}
}

// TestBuildEnds: layers that end in an unusual way have a ztoc that reads as they do.
func TestBuildEnds(t *testing.T) {
	t.Parallel()
	full := writeTar(t, 70_000)
	short := full[:(len(bytes.TrimRight(full, "\x00"))+511)&^511]
	for name, m := range map[string]made{
		"zeros behind the last member": {blob: append(member(t, full, "", 9000), make([]byte, 3<<20)...), tar: full},
		"no end blocks":                {blob: member(t, short, "", 9000), tar: short},
		"an empty tar":                 {blob: member(t, make([]byte, 10240), "", 1<<20), tar: make([]byte, 10240)},
		"an empty stream":              {blob: member(t, nil, "", 1), tar: nil},
		"two blocks of zeros":          {blob: make([]byte, 1024), tar: make([]byte, 1024)},
		"no bytes":                     {},
	} {
		s := m.sample(nil)
		var err error
		if s.ztoc, err = Build(context.Background(), s.layer(), bytes.NewReader(m.blob), &BuildOptions{SpanSize: 20_000}); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		x, err := Index(context.Background(), s.layer(), s.ztoc, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if y := s.pass(t); y != nil {
			checkEntries(t, x, y)
		}
		s.checkContent(t, x)
	}
}
