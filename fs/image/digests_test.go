package image

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
)

// meteredSource counts what is read, and may fail.
type meteredSource struct {
	io.ReaderAt
	n   int
	err error
}

func (s *meteredSource) ReadAt(p []byte, off int64) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	s.n += len(p)
	return s.ReaderAt.ReadAt(p, off)
}

// TestFarDigests finds digests of files by an index far away: they are those that the
// index here has, and a few of them are read.
func TestFarDigests(t *testing.T) {
	w := layerindex.NewWriter(nil)
	const files = 10_000
	end := int64(0)
	for i := range files {
		e := layerindex.Entry{Name: fmt.Sprint(i), Type: layerindex.TypeReg, Off: end, Size: int64(i % 3)}
		if e.HasDigest = i%7 > 0; e.HasDigest {
			e.Digest = sha256.Sum256([]byte{byte(i), byte(i >> 8)})
		}
		if err := w.AddEntry(&e); err != nil {
			t.Fatal(err)
		}
		end += (e.Size + 511) / 512 * 512
	}
	for range (end + 65535) / 65536 {
		w.AddChunk([32]byte{})
	}
	x, err := w.Finish(layerindex.Summary{ChunkSize: 64 << 10, BlobSize: end, TarSize: end})
	if err != nil {
		t.Fatal(err)
	}
	var file, digests bytes.Buffer
	if err := x.WritePublished(&file, &digests); err != nil {
		t.Fatal(err)
	}
	src := &meteredSource{ReaderAt: bytes.NewReader(digests.Bytes())}
	far, err := layerindex.OpenPublished(bytes.NewReader(file.Bytes()), int64(file.Len()), src, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, min := range []int64{1, 2} {
		here, err := newDigestTable(t.Context(), x, min)
		if err != nil {
			t.Fatal(err)
		}
		there, err := newDigestTable(t.Context(), far, min)
		if err != nil {
			t.Fatal(err)
		}
		if src.n != 0 {
			t.Errorf("%d bytes of digests were read before any was asked for", src.n)
		}
		known := 0
		for off := int64(0); off < end; off += 512 {
			want, ok, _ := here.find(off, 1)
			got, gotOK, err := there.find(off, 1)
			if err != nil || ok != gotOK || ok && !bytes.Equal(got, want) {
				t.Fatalf("at %d: %x, %v, %v, want %x, %v", off, got, gotOK, err, want, ok)
			}
			if ok {
				known++
			}
		}
		if known < files/4 {
			t.Errorf("%d digests are known", known)
		}
		if got, ok, err := there.find(1, 0); !ok || err != nil || [32]byte(got) != sha256.Sum256(nil) {
			t.Errorf("of no bytes: %x, %v, %v", got, ok, err)
		}
		src.n = 0
		if _, ok, err := there.find(here.offs[len(here.offs)-1], 1); !ok || err != nil || src.n > 64<<10 {
			t.Errorf("one digest: %v, %v, %d bytes read", ok, err, src.n)
		}
		src.err = errors.New("no route to host")
		if _, ok, err := there.find(here.offs[0], 1); ok || !errors.Is(err, src.err) || errors.Is(err, layerindex.ErrIndex) {
			t.Errorf("out of reach: %v, %v", ok, err)
		}
		src.n, src.err = 0, nil
	}
	without, err := layerindex.OpenPublished(bytes.NewReader(file.Bytes()), int64(file.Len()), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	table, err := newDigestTable(t.Context(), without, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := table.find(512, 1); ok || err != nil {
		t.Errorf("digests that are not to be had: %v, %v", ok, err)
	}
}
