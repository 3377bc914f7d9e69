// Package toctest has what the tests of packages estargz and zstdchunked share.
package toctest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/build"
	"github.com/imgfs/imgfs/layerindex/internal/codec"
	"github.com/imgfs/imgfs/layerindex/internal/decoders"
	"github.com/imgfs/imgfs/layerindex/reader"
	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/opencontainers/go-digest"
)

// A Layer is a layer of an image in an OCI layout.
type Layer struct {
	layerindex.Layer
	Annotations map[string]string
	Path        string // of the blob
}

type descriptor struct {
	Digest      digest.Digest     `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
}

// Foreign returns the path of a layout in corpora/foreign of the shared folder. The test
// is skipped if there is no such folder.
func Foreign(t testing.TB, name string) string {
	t.Helper()
	dir := testenv.Shared("corpora", "foreign")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("IMGFS_SHARED names no folder of layers with indexes that others made: %v", err)
	}
	return filepath.Join(dir, name)
}

// Layers returns the layers of the image in a layout that has a tag.
func Layers(t testing.TB, layout, tag string) []Layer {
	t.Helper()
	var index struct{ Manifests []descriptor }
	load(t, filepath.Join(layout, "index.json"), &index)
	for _, d := range index.Manifests {
		if d.Annotations["org.opencontainers.image.ref.name"] != tag {
			continue
		}
		var m struct {
			Config descriptor
			Layers []descriptor
		}
		load(t, blobPath(layout, d.Digest), &m)
		var config struct {
			RootFS struct {
				DiffIDs []digest.Digest `json:"diff_ids"`
			}
		}
		load(t, blobPath(layout, m.Config.Digest), &config)
		var list []Layer
		for i, l := range m.Layers {
			layer := Layer{Layer: layerindex.Layer{Digest: l.Digest, Size: l.Size}, Annotations: l.Annotations, Path: blobPath(layout, l.Digest)}
			if i < len(config.RootFS.DiffIDs) {
				layer.DiffID = config.RootFS.DiffIDs[i]
			}
			list = append(list, layer)
		}
		return list
	}
	t.Fatalf("%s: no image %q", layout, tag)
	return nil
}

func blobPath(layout string, d digest.Digest) string {
	return filepath.Join(layout, "blobs", d.Algorithm().String(), d.Encoded())
}

func load(t testing.TB, file string, to any) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Fixture returns a layer of the folder testdata, which layers.json describes.
func Fixture(t testing.TB, name string) Layer {
	t.Helper()
	var all map[string]struct {
		Annotations map[string]string
		DiffID      digest.Digest `json:"diff_id"`
	}
	load(t, filepath.Join("testdata", "layers.json"), &all)
	l := Layer{Annotations: all[name].Annotations, Path: filepath.Join("testdata", name+".layer")}
	l.Layer = Of(l.Read(t).B)
	l.DiffID = all[name].DiffID
	return l
}

// Read returns the layer's blob.
func (l Layer) Read(t testing.TB) *Blob {
	t.Helper()
	b, err := os.ReadFile(l.Path)
	if err != nil {
		t.Fatal(err)
	}
	return NewBlob(b)
}

// Of returns the layer that a blob is, of which nobody knows the DiffID.
func Of(blob []byte) layerindex.Layer {
	return layerindex.Layer{Digest: digest.FromBytes(blob), Size: int64(len(blob)), DiffID: digest.FromString("nobody knows")}
}

// A Blob is a layer's blob in memory, that counts what is read.
type Blob struct {
	B        []byte
	Requests []layerindex.Extent
}

// NewBlob returns a Blob.
func NewBlob(b []byte) *Blob { return &Blob{B: b} }

// ReadAt implements toc.Blob.
func (b *Blob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	b.Requests = append(b.Requests, layerindex.Extent{Off: off, Size: int64(len(p))})
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return bytes.NewReader(b.B).ReadAt(p, off)
}

// Size implements toc.Blob.
func (b *Blob) Size() int64 { return int64(len(b.B)) }

// Pass returns the index that the ordinary pass makes of a layer.
func Pass(t testing.TB, l layerindex.Layer, blob *Blob) *layerindex.Index {
	t.Helper()
	x, err := build.Index(context.Background(), l, bytes.NewReader(blob.B), nil)
	if err != nil {
		t.Fatalf("the ordinary pass: %v", err)
	}
	return x
}

// Contents decodes all members of a layer by an index in the space of contents and
// compares every proof, and every digest of a file. It returns the out space.
func Contents(t testing.TB, x *layerindex.Index, blob []byte) []byte {
	t.Helper()
	if err := x.Verify(context.Background()); err != nil {
		t.Fatalf("Verify: %v", err)
	}
	Covered(t, x)
	out, err := decode(x, blob)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := x.EntriesWithDigests()
	if err != nil {
		t.Fatal(err)
	}
	for e := range entries {
		if e.HasDigest && sha256.Sum256(out[e.Off:e.Off+e.Size]) != e.Digest {
			t.Errorf("%q: content is not what its digest says", e.Name)
		}
	}
	return out
}

// ReadBack reads a layer by its index with a reader.Reader whose Prover checks the blob,
// and compares all files with the out space.
func ReadBack(t testing.TB, x *layerindex.Index, blob *Blob, contents []byte) {
	t.Helper()
	p, err := reader.NewProver(x)
	if err != nil {
		t.Fatal(err)
	}
	r := reader.New(x, blob, &reader.Options{Prover: p})
	defer r.Close()
	for k := range p.Len() {
		if off, end := p.Bounds(k); p.Proved(k) && !p.Match(k, blob.B[off:end]) {
			t.Errorf("cut %d, from %d to %d, does not match", k, off, end)
		}
	}
	entries, err := x.Entries()
	if err != nil {
		t.Fatal(err)
	}
	for e := range entries {
		buf := make([]byte, e.Size)
		if n, err := r.ReadAt(context.Background(), buf, e.Off); int64(n) < e.Size || !bytes.Equal(buf, contents[e.Off:e.Off+e.Size]) {
			t.Errorf("%q: %d of %d bytes, %v", e.Name, n, e.Size, err)
		}
	}
}

// Proven reports whether all members of a layer decode to what the proofs of its index
// are of.
func Proven(x *layerindex.Index, blob []byte) bool {
	_, err := decode(x, blob)
	return err == nil
}

// Covered checks that each byte of each content is in a proof.
func Covered(t testing.TB, x *layerindex.Index) {
	t.Helper()
	entries, err := x.EntriesWithDigests()
	if err != nil {
		t.Fatal(err)
	}
	proofs, err := x.Proofs()
	if err != nil {
		t.Fatal(err)
	}
	for e := range entries {
		for at := e.Off; at < e.Off+e.Size; {
			k := proofs.Find(at)
			if k == proofs.Len() || proofs.At(k).Off > at {
				t.Errorf("%q: no proof of byte %d", e.Name, at-e.Off)
				break
			}
			at = proofs.At(k).Off + proofs.At(k).Size
		}
	}
}

// decode returns the out space of a layer, and an error if a proof does not hold.
func decode(x *layerindex.Index, blob []byte) ([]byte, error) {
	out := make([]byte, x.Size())
	spans, err := x.Spans()
	if err != nil {
		return nil, err
	}
	for i := range spans.Len() {
		at, in := spans.Start(i)
		end, inEnd := spans.End(i)
		if err := decodeSpan(x.Codec(), blob[in:inEnd], out[at:end]); err != nil {
			return nil, err
		}
	}
	proofs, err := x.Proofs()
	if err != nil {
		return nil, err
	}
	for i := range proofs.Len() {
		if p := proofs.At(i); sha256.Sum256(out[p.Off:p.Off+p.Size]) != p.Sum {
			return nil, fmt.Errorf("proof %d, of %d bytes at %d, does not hold", i, p.Size, p.Off)
		}
	}
	return out, nil
}

// decodeSpan decodes one member or frame to as much of out as there is.
func decodeSpan(c layerindex.Codec, in, out []byte) error {
	if len(out) == 0 {
		return nil
	}
	dec, err := decoders.Resume(c, bytes.NewReader(in), codec.Checkpoint{Start: true}, nil)
	if err != nil {
		return err
	}
	if c, ok := dec.(io.Closer); ok {
		defer c.Close()
	}
	for len(out) > 0 {
		p, err := dec.Next()
		out = out[copy(out, p):]
		if err == io.EOF {
			return nil
		}
		if err != nil && len(out) > 0 {
			return err
		}
	}
	return nil
}

// Same compares the entries of an index by a TOC with those of the ordinary pass. It
// forgives what mend changes in the pass's; mend returns false for those that are not
// to be there. Contents are those of Contents.
func Same(t testing.TB, got, want *layerindex.Index, contents []byte, mend func(*layerindex.Entry) bool) {
	t.Helper()
	a, b := list(t, got), list(t, want)
	if mend != nil {
		kept := b[:0]
		for _, e := range b {
			if mend(&e) {
				kept = append(kept, e)
			}
		}
		b = kept
	}
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) {
			t.Errorf("%d entries, the pass has %d", len(a), len(b))
			return
		}
		g, w := a[i], b[i]
		if g.Size > 0 && w.HasDigest && g.Off+g.Size <= int64(len(contents)) && sha256.Sum256(contents[g.Off:g.Off+g.Size]) != w.Digest {
			t.Errorf("%q: another content than in the tar", g.Name)
		}
		for _, e := range []*layerindex.Entry{&g, &w} {
			e.Off, e.Digest, e.HasDigest = 0, [32]byte{}, false
		}
		if !reflect.DeepEqual(g, w) {
			t.Errorf("entry %d:\n got %+v\nwant %+v", i, g, w)
		}
	}
}

func list(t testing.TB, x *layerindex.Index) []layerindex.Entry {
	t.Helper()
	entries, err := x.EntriesWithDigests()
	if err != nil {
		t.Fatal(err)
	}
	var all []layerindex.Entry
	for e := range entries {
		c := *e
		c.Xattrs = append([]layerindex.Xattr(nil), e.Xattrs...)
		all = append(all, c)
	}
	return all
}

// Whole rounds a time to seconds, as estargz does.
func Whole(e *layerindex.Entry) {
	if e.ModNsec >= 5e8 {
		e.ModSec++
	}
	e.ModNsec = 0
}

// DropEmpty drops attributes without a value, as old programs do.
func DropEmpty(e *layerindex.Entry) {
	e.Xattrs = slices.DeleteFunc(e.Xattrs, func(a layerindex.Xattr) bool { return a.Value == "" })
}

// Clean is the place in the tree that a name stands for.
func Clean(name string) string { return path.Clean("/" + name) }

// IsTOC reports whether an entry is the file that an eStargz layer has its TOC in.
func IsTOC(e *layerindex.Entry) bool { return Clean(e.Name) == "/stargz.index.json" }

// Dump describes an index in lines: for comparing with another one.
func Dump(t testing.TB, x *layerindex.Index) string {
	t.Helper()
	var s strings.Builder
	for _, e := range list(t, x) {
		fmt.Fprintf(&s, "%+v\n", e)
	}
	return s.String()
}
