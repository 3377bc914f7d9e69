package reader

import (
	"archive/tar"
	"bytes"
	stdgzip "compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"sort"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
	"github.com/klauspost/compress/zstd"
)

// A contentsLayer is a layer whose members are made for its files, with an index in
// contents space.
type contentsLayer struct {
	blob  samples.Blob
	tar   []byte
	x     *layerindex.Index
	out   []byte              // contents space; zeros where nothing is
	files []layerindex.Extent // of it, in order
	// proofs and members are those of the index.
	proofs  []layerindex.Proof
	members []layerindex.Checkpoint
}

// A contentsStyle says how a contentsLayer is made.
type contentsStyle struct {
	name  string
	codec layerindex.Codec
	chunk int // a member begins in a file after so many bytes; 0: never
	// least is how much a member has, unless a file is longer, before another file
	// begins a new one: estargz's min chunk size.
	least int
	// apart says that headers and padding have members of their own, as in
	// zstd:chunked. Otherwise they end the member of the content before.
	apart bool
	// whole says that a file has one proof, whatever its chunks are.
	whole bool
	// mark adds a checkpoint behind the last content, for what has none.
	mark bool
}

var contentsStyles = []contentsStyle{
	{name: "estargz", codec: layerindex.Gzip, chunk: 4 << 20},
	{name: "estargz with odd chunks", codec: layerindex.Gzip, chunk: 10_007, mark: true},
	{name: "estargz with several files a member", codec: layerindex.Gzip, chunk: 300_001, least: 50_000},
	{name: "estargz of zstd", codec: layerindex.Zstd, chunk: 1 << 20},
	{name: "estargz of zstd with several files a member", codec: layerindex.Zstd, chunk: 70_001, least: 20_000, mark: true},
	{name: "stargz without chunk digests", codec: layerindex.Gzip, chunk: 50_000, whole: true},
	{name: "zstd:chunked", codec: layerindex.Zstd, chunk: 65_537, apart: true, mark: true},
	{name: "zstd:chunked of long chunks", codec: layerindex.Zstd, apart: true},
}

// A memberPacker compresses members.
type memberPacker struct {
	gzip *stdgzip.Writer
	zstd *zstd.Encoder
}

func newMemberPacker(t testing.TB) *memberPacker {
	t.Helper()
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	return &memberPacker{stdgzip.NewWriter(nil), e}
}

// pack compresses a member like a stream: a zstd frame says nothing of its length,
// unless it is short.
func (p *memberPacker) pack(t testing.TB, c layerindex.Codec, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var err error
	if c == layerindex.Gzip {
		p.gzip.Reset(&out)
		_, err = p.gzip.Write(b)
		err = errors.Join(err, p.gzip.Close())
	} else {
		p.zstd.Reset(&out)
		_, err = p.zstd.Write(b)
		err = errors.Join(err, p.zstd.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// makeContents makes a layer of files, of which some may be empty.
func makeContents(t testing.TB, style contentsStyle, files [][]byte) *contentsLayer {
	t.Helper()
	l := &contentsLayer{}
	m := memberMaker{l: l, style: style, packer: newMemberPacker(t)}
	for i, f := range files {
		m.addFile(t, fmt.Sprintf("dir%d/file%d", i%7, i), f)
	}
	m.end(t)
	return l
}

// A memberMaker makes a contentsLayer.
type memberMaker struct {
	l      *contentsLayer
	style  contentsStyle
	packer *memberPacker
	cut    int // in the tar: where the member in hand begins
	// content says that the member in hand has contents, and base what is to be added
	// to a place in the tar to have that in contents space.
	content bool
	base    int64
	size    int64 // of contents space
}

// flush ends the member in hand.
func (m *memberMaker) flush(t testing.TB) {
	if m.cut < len(m.l.tar) {
		m.l.blob = append(m.l.blob, m.packer.pack(t, m.style.codec, m.l.tar[m.cut:])...)
	}
	m.cut, m.content = len(m.l.tar), false
}

// begin begins a member with the byte at out of contents space.
func (m *memberMaker) begin(t testing.TB, out int64) {
	m.flush(t)
	m.content, m.base = true, out-int64(m.cut)
	m.l.members = append(m.l.members, layerindex.Checkpoint{In: int64(len(m.l.blob)), Out: out, Start: true})
}

func (m *memberMaker) addFile(t testing.TB, name string, b []byte) {
	t.Helper()
	var head bytes.Buffer
	if err := tar.NewWriter(&head).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(b))}); err != nil {
		t.Fatal(err)
	}
	if m.style.apart {
		m.flush(t)
	}
	m.l.tar = append(m.l.tar, head.Bytes()...)
	off := (m.size + 511) &^ 511
	if len(b) > 0 && m.content && len(m.l.tar)-m.cut < m.style.least {
		off = m.base + int64(len(m.l.tar))
	} else if len(b) > 0 {
		m.begin(t, off)
	}
	m.l.files = append(m.l.files, layerindex.Extent{Off: off, Size: int64(len(b))})
	m.l.out = append(m.l.out, make([]byte, off-int64(len(m.l.out)))...)
	m.l.out = append(m.l.out, b...)
	for at := 0; at < len(b); {
		n := len(b) - at
		if m.style.chunk > 0 {
			n = min(n, m.style.chunk)
		}
		if at > 0 {
			m.begin(t, off+int64(at))
		}
		m.l.tar = append(m.l.tar, b[at:at+n]...)
		if !m.style.whole {
			m.l.proofs = append(m.l.proofs, layerindex.Proof{Off: off + int64(at), Size: int64(n), Sum: sha256.Sum256(b[at : at+n])})
		}
		at += n
	}
	if m.style.whole && len(b) > 0 {
		m.l.proofs = append(m.l.proofs, layerindex.Proof{Off: off, Size: int64(len(b)), Sum: sha256.Sum256(b)})
	}
	if len(b) > 0 {
		m.size = off + int64(len(b))
	}
	if m.style.apart {
		m.flush(t)
	}
	m.l.tar = append(m.l.tar, make([]byte, -len(b)&511)...)
}

// end ends the tar, adds a TOC and makes the index.
func (m *memberMaker) end(t testing.TB) {
	t.Helper()
	l := m.l
	m.flush(t)
	m.size = (m.size + 511) &^ 511
	l.out = append(l.out, make([]byte, 1024)...)[:m.size]
	l.tar = append(l.tar, make([]byte, 1024)...)
	if m.style.mark && m.size > 0 {
		l.members = append(l.members, layerindex.Checkpoint{In: int64(len(l.blob)), Out: m.size, Start: true})
	}
	m.flush(t)
	l.index(t, m.style.codec)
}

// index makes the index of what the layer has.
func (l *contentsLayer) index(t testing.TB, c layerindex.Codec) {
	t.Helper()
	w := layerindex.NewWriter(nil)
	for i, f := range l.files {
		if err := w.AddEntry(&layerindex.Entry{Name: fmt.Sprintf("file%d", i), Type: layerindex.TypeReg, Mode: 0o644, Off: f.Off, Size: f.Size}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.AddCheckpoints(l.members); err != nil {
		t.Fatal(err)
	}
	for _, p := range l.proofs {
		if err := w.AddProof(p); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	l.x, err = w.Finish(layerindex.Summary{
		Codec: c, Blob: sha256.Sum256(l.blob), BlobSize: int64(len(l.blob)), TarSize: int64(len(l.out)), DiffID: sha256.Sum256(l.tar),
		Space: layerindex.SpaceContents, Proof: layerindex.ProofOutput, Origin: layerindex.OriginEStargz,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// smallFiles returns files of which most are small, some empty, and a few of up to most
// bytes. They shrink to about a third.
func smallFiles(n, most int) [][]byte {
	rng := rand.New(rand.NewPCG(uint64(n), uint64(most)))
	words := make([][]byte, 400)
	for i := range words {
		words[i] = make([]byte, 1+rng.IntN(12))
		for k := range words[i] {
			words[i][k] = byte('a' + min(rng.IntN(26), rng.IntN(26)))
		}
	}
	files := make([][]byte, n)
	for i := range files {
		size := rng.IntN(6000)
		switch rng.IntN(50) {
		case 0, 1, 2:
			size = 0
		case 3:
			size = rng.IntN(most)
		case 4:
			size = 512 * (1 + rng.IntN(20))
		}
		for b := &files[i]; len(*b) < size; {
			*b = append(append(*b, words[min(rng.IntN(400), rng.IntN(400))]...), " \n;(){}.,"[rng.IntN(9)])
		}
		files[i] = files[i][:min(size, len(files[i]))]
	}
	return files
}

// A cutBlob is a blob behind a cache that checks each cut once, and has it from then on.
type cutBlob struct {
	samples.Blob
	p *Prover

	mu      sync.Mutex
	sound   map[int64]bool
	matched atomic.Int64
}

var errCut = errors.New("cut does not match")

func (b *cutBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	for k := b.p.Find(off); k < b.p.Len(); k++ {
		begin, end := b.p.Bounds(k)
		if begin >= off+int64(len(p)) {
			break
		}
		if err := b.check(k, begin, end); err != nil {
			return 0, err
		}
	}
	return b.Blob.ReadAt(ctx, p, off)
}

func (b *cutBlob) check(k, begin, end int64) error {
	b.mu.Lock()
	sound := b.sound[k]
	b.mu.Unlock()
	if sound {
		return nil
	}
	b.matched.Add(1)
	if !b.p.Match(k, b.Blob[begin:end]) {
		return fmt.Errorf("%w: %d, bytes %d to %d", errCut, k, begin, end)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sound == nil {
		b.sound = map[int64]bool{}
	}
	b.sound[k] = true
	return nil
}

// open returns a reader of the layer behind a cache.
func (l *contentsLayer) open(t testing.TB, opts Options) (*Reader, *cutBlob) {
	t.Helper()
	blob := &cutBlob{Blob: l.blob, p: mustProver(t, l.x)}
	opts.Prover = blob.p
	r := New(l.x, blob, &opts)
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, blob
}

func mustProver(t testing.TB, x *layerindex.Index) *Prover {
	t.Helper()
	p, err := NewProver(x)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// covered reports whether proofs cover all bytes from off to end.
func (l *contentsLayer) covered(off, end int64) bool {
	for off < end {
		i := sort.Search(len(l.proofs), func(i int) bool { return proofEnd(l.proofs[i]) > off })
		if i == len(l.proofs) || l.proofs[i].Off > off {
			return false
		}
		off = proofEnd(l.proofs[i])
	}
	return true
}
