package gzip

import (
	"bytes"
	stdgzip "compress/gzip"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/inflate/inflatetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestTruncated cuts a file at each byte.
func TestTruncated(t *testing.T) {
	want := text(2000, 4)
	file := append(zip(t, want), zip(t, want)...)
	d := new(Decoder)
	start := codec.Checkpoint{Start: true}
	d.s.inf = mustResume(t, file, start).s.inf
	for n := range len(file) {
		if err := d.Reset(bytes.NewReader(file[:n]), start); err != nil {
			t.Fatal(err)
		}
		got, _, err := decodeAll(d)
		whole := n == len(file)/2
		if whole != (err == nil) || !whole && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d of %d: got %v", n, len(file), err)
		}
		if !bytes.HasPrefix(append(want, want...), got) {
			t.Errorf("cut at %d of %d: got %d bytes, not the right ones", n, len(file), len(got))
		}
	}
}

func mustResume(t *testing.T, file []byte, cp codec.Checkpoint) *Decoder {
	t.Helper()
	d, err := Resume(bytes.NewReader(file[cp.In:]), cp)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestFlippedBits flips each bit of a file.
func TestFlippedBits(t *testing.T) {
	testenv.Slow(t)
	want := text(2000, 1)
	file := append(header(flagName), zip(t, want)[10:]...)
	start := codec.Checkpoint{Start: true}
	d := mustResume(t, file, start)
	for i := range len(file) * 8 {
		file[i/8] ^= 1 << (i % 8)
		if err := d.Reset(bytes.NewReader(file), start); err != nil {
			t.Fatal(err)
		}
		got, _, err := decodeAll(d)
		if err == nil && !bytes.Equal(got, want) {
			t.Errorf("bit %d of byte %d: wrong bytes and no error", i%8, i/8)
		}
		// Time, extra flags, system and name, the hint for text, and what
		// fills up the last byte of the stream.
		harmless := i/8 >= 4 && i/8 < 16 || i == 3*8 || i/8 == len(file)-9
		if err == nil && !harmless {
			t.Errorf("bit %d of byte %d of %d: no error", i%8, i/8, len(file))
		}
		file[i/8] ^= 1 << (i % 8)
	}
}

// TestReadError checks that an error of the source comes with its place, after
// what could be decoded.
func TestReadError(t *testing.T) {
	broken := errors.New("broken")
	want := text(inflatetest.Scale(3<<20), 7)
	file := zip(t, want)
	for _, n := range []int{0, 5, 300, len(file) / 2, len(file) - 4, len(file)} {
		src := io.MultiReader(bytes.NewReader(file[:n]), iotest.ErrReader(broken))
		got, _, err := decodeAll(NewIndexer(src, nil))
		var at *codec.Error
		if !errors.Is(err, broken) || !errors.As(err, &at) || at.In != int64(n) {
			t.Errorf("broken at %d: got %v", n, err)
		}
		if !bytes.HasPrefix(want, got) || n == len(file) && len(got) != len(want) {
			t.Errorf("broken at %d: got %d bytes", n, len(got))
		}
	}
}

// TestPartialSource resumes with only as much input as is needed for what is
// wanted, as a reader of a range does.
func TestPartialSource(t *testing.T) {
	testenv.Slow(t)
	want := text(3<<20, 8)
	file := zip(t, want)
	_, cps, err := decodeAll(NewIndexer(bytes.NewReader(file), &Options{SpanOut: 256 << 10, SpanIn: 1}))
	if err != nil || len(cps) < 5 {
		t.Fatalf("got %d checkpoints, %v", len(cps), err)
	}
	for i, cp := range cps[:len(cps)-1] {
		next := cps[i+1]
		end := next.In
		if next.Bit > 0 {
			end++
		}
		got, _, err := decodeAll(mustResume(t, file[:end], cp))
		if !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.HasPrefix(got, want[cp.Out:next.Out]) {
			t.Errorf("checkpoint %d, up to the next: got %d bytes, want %d, %v", i, len(got), next.Out-cp.Out, err)
		}
		if !bytes.HasPrefix(want[cp.Out:], got) {
			t.Errorf("checkpoint %d, up to the next: got wrong bytes", i)
		}
	}
}

// FuzzIndexer checks that what compress/gzip accepts comes out the same here,
// and from each checkpoint, and that nothing makes it panic.
func FuzzIndexer(f *testing.F) {
	f.Add(zip(f, []byte("hello")))
	f.Add(append(zip(f, text(1000, 1)), zip(f, nil)...))
	f.Add(append(header(flagName|flagComment|flagExtra|flagHeaderCRC), zip(f, text(100, 1))[10:]...))
	f.Add(append(zip(f, []byte("hello")), "garbage"...))
	f.Fuzz(func(t *testing.T, file []byte) {
		var want []byte
		r, stdErr := stdgzip.NewReader(bytes.NewReader(file))
		if stdErr == nil {
			want, stdErr = io.ReadAll(io.LimitReader(r, 16<<20))
		}
		if len(want) == 16<<20 {
			t.Skip("bomb")
		}
		got, cps, err := index(file)
		// The two differ about reserved flags, garbage and long names.
		if stdErr == nil && err == nil && !bytes.Equal(got, want) {
			t.Fatalf("got %d bytes, compress/gzip %d", len(got), len(want))
		}
		if stdErr == nil && errors.Is(err, io.ErrUnexpectedEOF) && len(file) > 0 {
			t.Fatalf("got %v, compress/gzip accepts it", err)
		}
		if err == nil && len(cps) > 0 {
			checkCheckpoints(t, new(Decoder), file, got, cps)
		}
	})
}
