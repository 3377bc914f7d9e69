package image

import (
	"context"
	"errors"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image/internal/keptfile"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/reader"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/blobs"
)

// keptMemory is what making a kept file may keep of decoded spans, besides the
// one that it is at. It is too little for decoding ahead.
const keptMemory = 1 << 20

// content returns the content of the layer at a position: that of the layer, read
// from kept files where there are any, and counted.
func (i *Image) content(at int, l *Layer) fs.Content {
	own := &layerContent{img: i, layer: l}
	if i.kept == nil || l.liesHere() {
		return i.counts.Content(at, own)
	}
	return i.counts.Content(at, i.kept.Content(at, own))
}

// liesHere reports whether the layer is a plain tar on this machine: reading it decodes
// nothing, and a kept file would be no more than a copy.
func (l *Layer) liesHere() bool {
	return l.Index.Codec() == layerindex.Plain && remote.IsLocal(l.Blob)
}

// A layerContent reads the files of a layer from its blob, and tells the image what
// was fetched and decoded for which file.
type layerContent struct {
	img   *Image
	layer *Layer
}

var _ keptfile.Layer = (*layerContent)(nil)

// ReadFileAt implements fs.Content.
func (c *layerContent) ReadFileAt(ctx context.Context, n fs.Node, p []byte, off int64) (int, error) {
	return n.ReadStreamAt(&meteredContext{ctx, c.img, n}, layerStream{c.layer}, p, off)
}

// ReadHeldAt implements fs.Content, of what is decoded and in memory.
func (c *layerContent) ReadHeldAt(n fs.Node, p []byte, off int64) bool {
	s := c.layer.state.Load()
	if n.IsSparse() || s.refuted() != nil {
		return false
	}
	begin, end := s.extent(n)
	return s.reader.ReadHeld(p, begin+off, end, func() context.Context {
		// No reader waits for what is done ahead.
		return &meteredContext{context.Background(), c.img, n}
	})
}

// FileDigest implements fs.Content. What reads an index for it ends when the
// image is closed.
func (c *layerContent) FileDigest(n fs.Node) (digest.Digest, bool, error) {
	return c.digest(n, c.img.digests.of)
}

// errUnproven: nothing binds a digest, so it must not lead to a kept file, which may be
// another's.
var errUnproven = errors.New("the digest is not proven yet")

// LargeFileDigest implements keptfile.Layer.
func (c *layerContent) LargeFileDigest(ctx context.Context, n fs.Node) (digest.Digest, bool, error) {
	if c.layer.Use().Vouched == VouchedByRegistry {
		return "", false, errUnproven
	}
	return c.digest(n, func(s *layerState) (*digestTable, error) { return s.large.of(ctx, s.index) })
}

// digest returns the SHA-256 of a file by a table of the layer's digests.
func (c *layerContent) digest(n fs.Node, tableOf func(*layerState) (*digestTable, error)) (digest.Digest, bool, error) {
	s := c.layer.state.Load()
	if err := s.refuted(); err != nil {
		return "", false, err
	}
	table, err := tableOf(s)
	if err != nil {
		c.layer.beginMend(s, err)
		return "", false, layerError(c.layer.Digest(), err)
	}
	off, end := s.extent(n)
	sum, ok, err := table.find(off, end-off)
	if err != nil && s.doubtful(err) {
		c.layer.beginMend(s, err)
	}
	if err != nil {
		return "", false, layerError(c.layer.Digest(), err)
	}
	if !ok {
		return "", false, nil
	}
	return asDigest(sum), true, nil
}

// Refuted implements keptfile.Layer.
func (c *layerContent) Refuted() error { return c.layer.state.Load().refuted() }

// DecodedFrom implements keptfile.Layer.
func (c *layerContent) DecodedFrom(off, end int64) (int64, error) {
	s := c.layer.state.Load()
	at := s.places.find(off)
	from, _, _, err := s.reader.Source(at, at+end-off)
	return off - (at - from), err
}

// Present implements keptfile.Layer.
func (c *layerContent) Present(off, end, slack int64) (bool, error) {
	s := c.layer.state.Load()
	at := s.places.find(off)
	_, from, to, err := s.reader.Source(at, at+end-off)
	if err != nil {
		return false, err
	}
	size := to - from
	if slack > 0 {
		size = max(1, size-slack)
	}
	return s.blob.Present(from, size), nil
}

// NewReader implements keptfile.Layer.
func (c *layerContent) NewReader(noRoom func()) keptfile.StreamCloser {
	s := c.layer.state.Load()
	return placedReader{s.reader.Again(presentBlob{s.blob}, &reader.Options{
		Cache:       reader.NewSpanCache(keptMemory),
		NewTemp:     newTemp(c.layer.cache, true),
		SpoolFailed: func(error) { noRoom() },
	}), s.places}
}

// A placedReader reads a layer by another index than the tree was made of.
type placedReader struct {
	*reader.Reader
	places placesTable
}

// ReadFileAt implements fs.Stream.
func (r placedReader) ReadFileAt(ctx context.Context, p []byte, off, end int64) (int, error) {
	at := r.places.find(off)
	return r.Reader.ReadFileAt(ctx, p, at, at+end-off)
}

// extent is n.Extent in the stream that the state reads.
func (s *layerState) extent(n fs.Node) (off, end int64) {
	off, end = n.Extent()
	at := s.places.find(off)
	return at, at + end - off
}

// A readerBlob is the blob of a layer as its reader has it.
type readerBlob struct{ *blobs.Blob }

// ReadAt is that of the blob, but fetches nothing where nobody waits.
func (b readerBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if reader.IsExpected(ctx) {
		return b.ReadPresent(ctx, p, off)
	}
	return b.Blob.ReadAt(ctx, p, off)
}

// A presentBlob is what is on disk of a blob.
type presentBlob struct{ *blobs.Blob }

func (b presentBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return b.ReadPresent(ctx, p, off)
}

// Prefetch does nothing: nothing is fetched to make a kept file.
func (presentBlob) Prefetch(off, n int64) {}

// A layerStream is the fs.Stream of a layer.
type layerStream struct{ *Layer }

var _ fs.Stream = layerStream{}

// ReadFileAt implements fs.Stream. If the index turns out to be wrong it is put
// right and the read is done again.
func (c layerStream) ReadFileAt(ctx context.Context, p []byte, off, end int64) (int, error) {
	s := c.state.Load()
	n, err := s.read(ctx, p, off, end)
	if err == nil || ctx.Err() != nil || !c.replaced(ctx, s, err) {
		return n, err
	}
	return c.state.Load().read(ctx, p, off, end)
}

// A meteredContext has what is fetched and decoded counted for a file. A read
// that finds all it wants in memory has it too: what is fetched ahead of the
// next one is fetched for the same file.
type meteredContext struct {
	context.Context
	img *Image
	n   fs.Node
}

var (
	_ blobs.Meter  = (*meteredContext)(nil)
	_ reader.Meter = (*meteredContext)(nil)
)

func (m *meteredContext) Value(key any) any {
	switch key.(type) {
	case blobs.MeterKey, reader.MeterKey:
		return m
	}
	return m.Context.Value(key)
}

// Fetched is the cache.Meter.
func (m *meteredContext) Fetched(bytes int64) { m.img.counts.Fetched(m.n, bytes) }

// Decoded is the reader.Meter.
func (m *meteredContext) Decoded(bytes int64) {
	if m.img.kept != nil {
		m.img.kept.Decoded(m.n, bytes)
	}
}
