package soci

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/build"
	"github.com/imgfs/imgfs/layerindex/reader"
	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A sample is a layer with a ztoc, and what the tar is.
type sample struct {
	name            string
	blob, tar, ztoc []byte
	first           []SpanRange
}

func (s *sample) layer() layerindex.Layer {
	return layerindex.Layer{Digest: digest.FromBytes(s.blob), Size: int64(len(s.blob)), DiffID: digest.FromBytes(s.tar)}
}

func (s *sample) index(t testing.TB) *layerindex.Index {
	t.Helper()
	x, err := Index(context.Background(), s.layer(), s.ztoc, &Options{First: s.first})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// unpack returns the tar of a blob, which is a tar or a gzip file.
func unpack(t testing.TB, blob []byte) []byte {
	t.Helper()
	if len(blob) == 0 || blob[0] != 0x1f {
		return blob
	}
	z, err := gzip.NewReader(bytes.NewReader(blob))
	if err != nil {
		t.Fatal(err)
	}
	tar, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return tar
}

// foreign returns the layers with ztocs of an image that SOCI has made. The test is
// skipped if it is not there.
func foreign(t testing.TB, name string) []sample {
	t.Helper()
	dir := testenv.Shared("corpora", "foreign", name)
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("IMGFS_SHARED names no folder of images with indexes that others made: %v", err)
	}
	return layout(t, name, dir)
}

// layout returns the layers with ztocs of an OCI layout.
func layout(t testing.TB, name, dir string) []sample {
	t.Helper()
	blob := func(d digest.Digest) []byte {
		b, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", d.Encoded()))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	top, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var samples []sample
	var walk func(doc []byte)
	walk = func(doc []byte) {
		var index ocispec.Index
		if err := json.Unmarshal(doc, &index); err != nil {
			t.Fatal(err)
		}
		for _, d := range index.Manifests {
			walk(blob(d.Digest))
		}
		if len(index.Manifests) > 0 {
			return
		}
		m, err := ParseIndex(doc)
		if err != nil {
			return // an image
		}
		for d, f := range m.Layers {
			s := sample{name: fmt.Sprintf("%s/%.12s", name, d.Encoded()), blob: blob(d), ztoc: blob(f.Ztoc.Digest)}
			s.tar = unpack(t, s.blob)
			if f.Prefetch != nil {
				if s.first, err = ParsePrefetch(blob(f.Prefetch.Digest)); err != nil {
					t.Fatal(err)
				}
			}
			if !slices.ContainsFunc(samples, func(o sample) bool { return o.name == s.name }) {
				samples = append(samples, s)
			}
		}
	}
	walk(top)
	if len(samples) == 0 {
		t.Fatalf("%s: no ztocs", name)
	}
	return samples
}

// entriesOf returns copies of an index's entries, without digests.
func entriesOf(t testing.TB, x *layerindex.Index) []layerindex.Entry {
	t.Helper()
	seq, err := x.Entries()
	if err != nil {
		t.Fatal(err)
	}
	var list []layerindex.Entry
	for e := range seq {
		c := *e
		c.Xattrs, c.Sparse = slices.Clone(e.Xattrs), slices.Clone(e.Sparse)
		c.Digest, c.HasDigest = [32]byte{}, false
		list = append(list, c)
	}
	return list
}

// pass is the index that a pass over the blob makes.
func (s *sample) pass(t testing.TB) *layerindex.Index {
	t.Helper()
	x, err := build.Index(context.Background(), s.layer(), bytes.NewReader(s.blob), nil)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// checkEntries compares the entries of two indexes.
func checkEntries(t testing.TB, got, want *layerindex.Index) {
	t.Helper()
	g, w := entriesOf(t, got), entriesOf(t, want)
	for i := range min(len(g), len(w)) {
		if !reflect.DeepEqual(g[i], w[i]) {
			t.Errorf("entry %d\n got %+v\nwant %+v", i, g[i], w[i])
		}
	}
	if len(g) != len(w) {
		t.Errorf("%d entries, want %d", len(g), len(w))
	}
}

// memory is a blob in memory.
type memory []byte

func (m memory) Size() int64 { return int64(len(m)) }

func (m memory) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return bytes.NewReader(m).ReadAt(p, off)
}

// checkContent decodes each span alone, the last one first, and compares it with the
// tar; and compares each proof with the blob.
func (s *sample) checkContent(t testing.TB, x *layerindex.Index) {
	t.Helper()
	if err := x.Verify(context.Background()); err != nil {
		t.Fatal(err)
	}
	if x.Size() > int64(len(s.tar)) {
		t.Fatalf("the index has %d bytes of a tar of %d", x.Size(), len(s.tar))
	}
	spans, err := x.Spans()
	if err != nil {
		t.Fatal(err)
	}
	r := reader.New(x, memory(s.blob), nil)
	defer r.Close()
	bounds := []int64{0, x.Size()}
	if spans != nil {
		bounds = bounds[:0]
		for i := range spans.Len() {
			out, _ := spans.Start(i)
			bounds = append(bounds, out)
		}
		bounds = append(bounds, x.Size())
	}
	for i := len(bounds) - 2; i >= 0; i-- {
		got := make([]byte, bounds[i+1]-bounds[i])
		if n, err := r.ReadAt(context.Background(), got, bounds[i]); n < len(got) {
			t.Errorf("span %d: %d bytes of %d: %v", i, n, len(got), err)
		} else if !bytes.Equal(got, s.tar[bounds[i]:bounds[i+1]]) {
			t.Errorf("span %d is not what the tar has", i)
		}
	}
	s.checkProofs(t, x)
}

// checkProofs compares the proofs with the blob. They have all of it but the header of
// a gzip file.
func (s *sample) checkProofs(t testing.TB, x *layerindex.Index) {
	t.Helper()
	proofs, err := x.Proofs()
	if err != nil {
		t.Fatal(err)
	}
	var end int64
	for i := range proofs.Len() {
		p := proofs.At(i)
		if got := digest.FromBytes(s.blob[p.Off : p.Off+p.Size]); got.Encoded() != fmt.Sprintf("%x", p.Sum) {
			t.Errorf("proof %d of %d bytes at %d: %x, the blob has %s", i, p.Size, p.Off, p.Sum, got)
		}
		if i == 0 && x.Codec() == layerindex.Gzip {
			end = p.Off
		}
		if p.Off != end && p.Off != end-1 {
			t.Errorf("proof %d begins at %d, behind one that ends at %d", i, p.Off, end)
		}
		end = p.Off + p.Size
	}
	if end != int64(len(s.blob)) {
		t.Errorf("proofs end at %d of %d", end, len(s.blob))
	}
}
