package build

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
	"github.com/opencontainers/go-digest"
)

// A layer may have as many bytes as it is allowed, and not one more.
func TestBuildMaxSize(t *testing.T) {
	tarBytes := samples.Tar(t, 300_000)
	size := int64(len(tarBytes))
	for _, c := range samples.Codecs {
		t.Run(c.Name, func(t *testing.T) {
			blob := c.Wrap(t, tarBytes)
			for _, tt := range []struct {
				most int64
				want error
			}{{0, nil}, {size, nil}, {size + 1, nil}, {size - 1, layerindex.ErrTooBig}, {1, layerindex.ErrTooBig}} {
				x, err := Index(t.Context(), claim(blob, tarBytes), bytes.NewReader(blob), &Options{MaxSize: tt.most})
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
	src := &endless{Reader: io.MultiReader(&head, samples.Zeros{})}
	l := layerindex.Layer{Digest: digest.FromString("any"), Size: 1 << 40, DiffID: digest.FromString("any")}
	_, err := Index(t.Context(), l, src, &Options{MaxSize: 10 << 20})
	var where *layerindex.FormatError
	if !errors.Is(err, layerindex.ErrTooBig) || !errors.As(err, &where) || where.Entry != "big" {
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
	frame := samples.NewFrame(false)
	frame.Block(1, 128<<10, false, 0)
	for name, src := range map[string]io.Reader{
		"tar":  samples.Zeros{},
		"zstd": io.MultiReader(bytes.NewReader(frame.Bytes()), &repeated{p: frame.Bytes()[6:]}),
	} {
		t.Run(name, func(t *testing.T) {
			e := &endless{Reader: src}
			l := layerindex.Layer{Digest: digest.FromString("x"), Size: 1 << 50, DiffID: digest.FromString("y")}
			_, err := Index(t.Context(), l, e, &Options{MaxSize: 32 << 20})
			if !errors.Is(err, layerindex.ErrTooBig) {
				t.Errorf("got error %v, want %v", err, layerindex.ErrTooBig)
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
