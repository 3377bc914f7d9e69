package estargz_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/estargz"
	"github.com/imgfs/imgfs/layerindex/internal/toctest"
	"github.com/opencontainers/go-digest"
)

// tocDigest is what the annotation of a layer says.
func tocDigest(l toctest.Layer) digest.Digest {
	return digest.Digest(l.Annotations[estargz.TOCDigestAnnotation])
}

// index makes the index of a blob.
func index(blob *toctest.Blob, opts *estargz.Options) (*layerindex.Index, error) {
	return estargz.Index(context.Background(), toctest.Of(blob.B), blob, opts)
}

// TestFixtures compares the index of each layer with what the ordinary pass finds in it,
// and each proof with what the members decode to.
func TestFixtures(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"build", "prefetch", "min", "lossless", "external"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkLayer(t, toctest.Fixture(t, name), func() ([]byte, error) {
				return os.ReadFile(filepath.Join("testdata", name+".toc"))
			})
		})
	}
}

// TestSummary checks what an index says of itself.
func TestSummary(t *testing.T) {
	t.Parallel()
	l := toctest.Fixture(t, "build")
	x, err := estargz.Index(t.Context(), l.Layer, l.Read(t), &estargz.Options{TOCDigest: tocDigest(l)})
	if err != nil {
		t.Fatal(err)
	}
	if x.Digest() != l.Digest || x.DiffID() != l.DiffID || x.BlobSize() != l.Size || x.Codec() != layerindex.Gzip {
		t.Errorf("%v %v %d %v", x.Digest(), x.DiffID(), x.BlobSize(), x.Codec())
	}
	if x.Space() != layerindex.SpaceContents || x.ProofKind() != layerindex.ProofOutput || x.Origin() != layerindex.OriginEStargz {
		t.Errorf("%v %v %v", x.Space(), x.ProofKind(), x.Origin())
	}
	if x.Losses() != layerindex.LossSubSecond {
		t.Errorf("losses: %v", x.Losses())
	}
}

// TestFirst: what is before the landmark is to be fetched first.
func TestFirst(t *testing.T) {
	t.Parallel()
	l := toctest.Fixture(t, "prefetch")
	x, err := estargz.Index(t.Context(), l.Layer, l.Read(t), &estargz.Options{TOCDigest: tocDigest(l)})
	if err != nil {
		t.Fatal(err)
	}
	first, err := x.First()
	if err != nil || len(first) != 1 {
		t.Fatalf("%v, %v", first, err)
	}
	end := first[0].Off + first[0].Size
	var inside, landmark []string
	entries, err := x.Entries()
	if err != nil {
		t.Fatal(err)
	}
	spans, err := x.Spans()
	if err != nil {
		t.Fatal(err)
	}
	for e := range entries {
		if e.Size == 0 {
			continue
		}
		switch _, in := spans.Start(spans.Find(e.Off)); {
		case in < first[0].Off:
			t.Errorf("%q at %d is before %v", e.Name, in, first)
		case in < end:
			inside = append(inside, e.Name)
		case in == end:
			landmark = append(landmark, e.Name)
		}
	}
	if got := strings.Join(inside, " "); got != "d/one d/chunks" {
		t.Errorf("to fetch first: %s", got)
	}
	if got := strings.Join(landmark, " "); got != ".prefetch.landmark" {
		t.Errorf("behind that: %s", got)
	}
	for _, name := range []string{"build", "lossless"} {
		l := toctest.Fixture(t, name)
		x, err := estargz.Index(t.Context(), l.Layer, l.Read(t), &estargz.Options{TOCDigest: tocDigest(l)})
		if err != nil {
			t.Fatal(err)
		}
		if first, err := x.First(); len(first) > 0 || err != nil {
			t.Errorf("%s: to fetch first: %v, %v", name, first, err)
		}
	}
}

// TestContentsEnd: a last checkpoint keeps the TOC out of what is fetched for the last file.
func TestContentsEnd(t *testing.T) {
	t.Parallel()
	l := toctest.Fixture(t, "build")
	blob := l.Read(t)
	x, err := estargz.Index(t.Context(), l.Layer, blob, &estargz.Options{TOCDigest: tocDigest(l)})
	if err != nil {
		t.Fatal(err)
	}
	spans, err := x.Spans()
	if err != nil {
		t.Fatal(err)
	}
	if out, in := spans.Start(spans.Len() - 1); out != x.Size() || in != int64(len(apart(t, blob.B).contents)) {
		t.Errorf("the last checkpoint is at %d, %d; the contents end at %d, %d", out, in, x.Size(), len(apart(t, blob.B).contents))
	}
}

// TestLatin1: what JSON cannot say is left to the ordinary pass.
func TestLatin1(t *testing.T) {
	t.Parallel()
	l := toctest.Fixture(t, "latin1")
	for _, d := range []digest.Digest{"", tocDigest(l)} {
		if _, err := estargz.Index(t.Context(), l.Layer, l.Read(t), &estargz.Options{TOCDigest: d}); !errors.Is(err, layerindex.ErrLossy) || errors.Is(err, layerindex.ErrIndex) {
			t.Errorf("%q: %v", d, err)
		}
	}
}

// TestStargz reads a layer as they were before eStargz: with a shorter footer, without
// digests of chunks.
func TestStargz(t *testing.T) {
	t.Parallel()
	l := toctest.Fixture(t, "build")
	p := apart(t, l.Read(t).B).changed(t, func(x *toc) {
		for _, e := range x.Entries {
			delete(e, "chunkDigest")
			if attrs, ok := e["xattrs"].(map[string]any); ok {
				delete(attrs, "user.empty")
			}
			e["NumLink"] = 0
		}
	})
	blob := p.legacy(t)
	x, err := index(blob, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := layerindex.LossSubSecond | layerindex.LossEmptyXattrs; x.Losses() != want {
		t.Errorf("losses %v, want %v", x.Losses(), want)
	}
	pass := toctest.Pass(t, unchecked(t, blob), blob)
	contents := toctest.Contents(t, x, blob.B)
	toctest.ReadBack(t, x, blob, contents)
	toctest.Same(t, x, pass, contents, func(e *layerindex.Entry) bool {
		toctest.Whole(e)
		toctest.DropEmpty(e)
		return true
	})
	// Without any digest nothing proves a content.
	blob = p.changed(t, func(x *toc) { delete(x.entry("d/one"), "digest") }).legacy(t)
	if _, err := index(blob, nil); !errors.Is(err, estargz.ErrNone) {
		t.Errorf("a file without a digest: %v", err)
	}
}

// TestNone: layers without a TOC.
func TestNone(t *testing.T) {
	t.Parallel()
	for name, blob := range map[string][]byte{
		"empty":    {},
		"short":    {0x1f, 0x8b},
		"gzip":     tarOf(t, "file", []byte("content")),
		"footless": apart(t, toctest.Fixture(t, "build").Read(t).B).contents,
	} {
		if _, err := index(toctest.NewBlob(blob), nil); !errors.Is(err, estargz.ErrNone) {
			t.Errorf("%s: %v", name, err)
		}
		// The manifest says that there is one.
		if _, err := index(toctest.NewBlob(blob), &estargz.Options{TOCDigest: digest.FromString("")}); !errors.Is(err, layerindex.ErrIndex) {
			t.Errorf("%s, bound: %v", name, err)
		}
	}
	l := toctest.Fixture(t, "external")
	for _, opts := range []*estargz.Options{nil, {TOCDigest: tocDigest(l)}} {
		if _, err := estargz.Index(t.Context(), l.Layer, l.Read(t), opts); !errors.Is(err, estargz.ErrNone) {
			t.Errorf("external TOC that nobody brings: %v", err)
		}
	}
}

// BenchmarkIndex makes the index of a TOC of 25 MB with 100,000 files.
func BenchmarkIndex(b *testing.B) {
	p := many(b, 100_000)
	blob := p.blob(b)
	l := toctest.Of(blob.B)
	b.SetBytes(int64(len(p.json)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := estargz.Index(b.Context(), l, blob, &estargz.Options{TOCDigest: p.digest()}); err != nil {
			b.Fatal(err)
		}
	}
}
