package zstdchunked_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/toctest"
	"github.com/imgfs/imgfs/layerindex/zstdchunked"
	"github.com/opencontainers/go-digest"
)

const stargzKey = "containerd.io/snapshot/stargz/toc.digest"

// TestFixtures compares the index of each layer with what the ordinary pass finds in it,
// and each proof with what the frames decode to.
func TestFixtures(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"podman", "stargz", "latin1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkLayer(t, toctest.Fixture(t, name))
		})
	}
}

// TestSummary checks what an index says of itself.
func TestSummary(t *testing.T) {
	t.Parallel()
	l := toctest.Fixture(t, "podman")
	x, err := zstdchunked.Index(t.Context(), l.Layer, l.Read(t), &zstdchunked.Options{Annotations: annotated(t, l)})
	if err != nil {
		t.Fatal(err)
	}
	if x.Digest() != l.Digest || x.DiffID() != l.DiffID || x.BlobSize() != l.Size || x.Codec() != layerindex.Zstd {
		t.Errorf("%v %v %d %v", x.Digest(), x.DiffID(), x.BlobSize(), x.Codec())
	}
	if x.Space() != layerindex.SpaceContents || x.ProofKind() != layerindex.ProofOutput || x.Origin() != layerindex.OriginZstdChunked || x.Losses() != 0 {
		t.Errorf("%v %v %v %v", x.Space(), x.ProofKind(), x.Origin(), x.Losses())
	}
	if first, err := x.First(); len(first) > 0 || err != nil {
		t.Errorf("to fetch first: %v, %v", first, err)
	}
}

// TestLosses: what a program may have left out is told, unless an entry has some of it.
func TestLosses(t *testing.T) {
	t.Parallel()
	without := func(x *toc) {
		for _, e := range x.Entries {
			delete(e, "xattrs")
			if s, ok := e["modtime"].(string); ok && strings.Contains(s, ".") {
				e["modtime"] = "2024-02-29T12:34:56Z"
			}
		}
	}
	p := apart(t, "podman")
	bare := func([]byte) []byte { return nil }
	first := func(p parts) parts { p.first = true; return p }
	for _, c := range []struct {
		name string
		p    parts
		want layerindex.Loss
	}{
		{"third generation", p.changed(t, without, nil), 0},
		{"second", p.changed(t, without, bare), layerindex.LossEmptyXattrs},
		{"second, with an empty attribute", p.changed(t, nil, bare), 0},
		{"first", first(p.changed(t, without, bare)), layerindex.LossSubSecond | layerindex.LossEmptyXattrs},
		{"first, with both", first(p.changed(t, nil, bare)), 0},
	} {
		x, err := c.p.make(t).alone()
		if err != nil || x.Losses() != c.want {
			t.Errorf("%s: %v, %v, want %v", c.name, x.Losses(), err, c.want)
		}
	}
}

// TestLongTarSplit: a tar-split that is not short is read if it is needed, and not
// otherwise.
func TestLongTarSplit(t *testing.T) {
	t.Parallel()
	longer := func(b []byte) []byte {
		// Of no use to anybody, and not to be compressed.
		var more strings.Builder
		more.WriteString(`{"type":2,"unknown":"`)
		for d := digest.FromString("x"); more.Len() < 200_000; d = digest.FromString(d.String()) {
			more.WriteString(d.Encoded())
		}
		return append(b, more.String()+`"}`...)
	}
	for _, c := range []struct {
		name     string
		requests int
	}{{"podman", 1}, {"latin1", 2}} {
		l := toctest.Fixture(t, c.name)
		m := apart(t, c.name).changed(t, nil, longer).make(t)
		x, err := m.index()
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if len(m.Requests) != c.requests {
			t.Errorf("%s: requests %v", c.name, m.Requests)
		}
		toctest.Same(t, x, toctest.Pass(t, l.Layer, l.Read(t)), toctest.Contents(t, x, m.B), nil)
	}
}

// TestAnnotated reads both prefixes.
func TestAnnotated(t *testing.T) {
	t.Parallel()
	const now, before = "io.github.containers.zstd-chunked.", "io.containers.zstd-chunked."
	with := func(prefix, sum, position string) map[string]string {
		return map[string]string{prefix + "manifest-checksum": sum, prefix + "manifest-position": position}
	}
	both := func(a, b map[string]string) map[string]string {
		for k, v := range b {
			a[k] = v
		}
		return a
	}
	for _, c := range []struct {
		name        string
		annotations map[string]string
		want        zstdchunked.Annotations
		err         error
	}{
		{"none", nil, zstdchunked.Annotations{}, zstdchunked.ErrNone},
		{"others", map[string]string{stargzKey: "sha256:"}, zstdchunked.Annotations{}, zstdchunked.ErrNone},
		{"half", map[string]string{now + "manifest-checksum": "a"}, zstdchunked.Annotations{}, zstdchunked.ErrNone},
		{"now", with(now, "a", "b"), zstdchunked.Annotations{ManifestChecksum: "a", ManifestPosition: "b"}, nil},
		{"before", with(before, "a", "b"), zstdchunked.Annotations{ManifestChecksum: "a", ManifestPosition: "b", First: true}, nil},
		{"tar-split", both(with(now, "a", "b"), map[string]string{now + "tarsplit-position": "c", now + "tarsplit-checksum": "d"}),
			zstdchunked.Annotations{ManifestChecksum: "a", ManifestPosition: "b", TarSplitPosition: "c"}, nil},
		{"both", both(with(now, "a", "b"), with(before, "a", "b")), zstdchunked.Annotations{ManifestChecksum: "a", ManifestPosition: "b"}, nil},
		{"two sums", both(with(now, "a", "b"), with(before, "c", "b")), zstdchunked.Annotations{}, layerindex.ErrIndex},
		{"two places", both(with(now, "a", "b"), with(before, "a", "c")), zstdchunked.Annotations{}, layerindex.ErrIndex},
	} {
		if got, err := zstdchunked.Annotated(c.annotations); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

// TestTwoKinds: the annotation that stargz-snapshotter writes besides must be of the same
// TOC.
func TestTwoKinds(t *testing.T) {
	t.Parallel()
	l := toctest.Fixture(t, "stargz")
	blob := l.Read(t)
	opts := &zstdchunked.Options{Annotations: annotated(t, l), TOCDigest: digest.Digest(l.Annotations[stargzKey])}
	if _, err := zstdchunked.Index(t.Context(), l.Layer, blob, opts); err != nil {
		t.Error(err)
	}
	opts.TOCDigest = digest.FromString("another TOC")
	if _, err := zstdchunked.Index(t.Context(), l.Layer, blob, opts); !errors.Is(err, layerindex.ErrIndex) || !strings.Contains(err.Error(), "another TOC") {
		t.Error(err)
	}
}

// TestEmpty: a layer without contents has no members.
func TestEmpty(t *testing.T) {
	t.Parallel()
	p := apart(t, "podman").changed(t, func(x *toc) { x.Entries = x.Entries[:2] }, func([]byte) []byte { return nil })
	m := p.make(t)
	x, err := m.index()
	if err != nil {
		t.Fatal(err)
	}
	if len(toctest.Contents(t, x, m.B)) > 0 || x.NumEntries() != 2 || x.Size() != 0 {
		t.Errorf("%d entries, %d bytes", x.NumEntries(), x.Size())
	}
}

// TestSplitBefore: nothing says that the tar-split is behind the TOC.
func TestSplitBefore(t *testing.T) {
	t.Parallel()
	p := apart(t, "latin1")
	m := p.changed(t, nil, nil).make(t)
	// The same, with the two in the other order.
	var at, n, raw, splitAt, splitN, splitRaw int
	scan(t, m.ManifestPosition, "%d:%d:%d:1", &at, &n, &raw)
	scan(t, m.TarSplitPosition, "%d:%d:%d", &splitAt, &splitN, &splitRaw)
	m.Blob = toctest.NewBlob(bytes.Join([][]byte{p.contents, m.B[splitAt-8 : splitAt+splitN], m.B[at-8 : at+n]}, nil))
	m.ManifestPosition = position(len(p.contents)+8+splitN+8, n, raw, 1)
	m.TarSplitPosition = position(len(p.contents)+8, splitN, splitRaw)
	x, err := m.index()
	if err != nil {
		t.Fatal(err)
	}
	toctest.Contents(t, x, m.B)
}
