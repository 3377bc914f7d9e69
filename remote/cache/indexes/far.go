package indexes

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote"
)

const (
	// openLimit is how long nothing may come while a far index is opened, and openTime
	// how long that takes at most: a mount waits for it, and can do without.
	openLimit, openTime = 3 * time.Second, slowest * 3 * time.Second
	// readLimit is how long nothing may come later: what waits can do without, too, but
	// that takes all of the layer.
	readLimit = 10 * time.Second
	// writeTime is how long a piece may take that another process is just writing.
	writeTime = 100 * time.Millisecond
)

// FarOptions say where an index is that was published, and what is kept of it. See package
// indexrepo, which finds such.
type FarOptions struct {
	// Header is the checksum that the index file's header must have.
	Header [32]byte
	// Listing is how many bytes of Index, from its beginning, are asked for first: as
	// many as its publisher says that a listing needs.
	Listing int64
	// Index is the index file, and Digests the file with the digests of contents; nil
	// if there is none.
	Index, Digests remote.Blob
	// MakeRoom reports whether so many bytes may be written now, as Cache.MakeRoom
	// does. Nil: nothing is kept on disk.
	MakeRoom func(n int64) bool
	// Held, if not nil, is a file that Hold returned, in place of the one in the
	// directory. It stays the caller's.
	Held *os.File
	// DiskFailed, if not nil, is told why the disk did not take something.
	DiskFailed func(error)
}

// FarKey returns the key of a published index whose header has that checksum.
func FarKey(header [32]byte) string { return hex.EncodeToString(header[:])[:keySize] }

// Far returns a published index of a layer, which stays where it is but for what was
// needed of it. That is fetched by range, each piece of it checked whenever it comes from
// the network or from disk, and kept in the file of that layer and key, beside the index
// that was made by reading the layer. The file may have holes, and any number of
// processes may fill it at the same time.
//
// Far itself fetches, by one request if it is no more than 4 MiB, what listing the layer
// needs, as far as it is not here, and gives up when nothing has come for three seconds,
// or it takes 24. What is fetched later fails when nothing has come for ten, or it takes
// 80: of the index, but not of the
// digests, that is layerindex.ErrIndex, too, whatever the reason, as an index that was
// made here is the remedy.
//
// The error wraps ErrNone and layerindex.ErrIndex if what is there is not the index that
// opts describe, or not one of the layer that a pass over all of it has made. Else it is
// that of opts.Index, or ctx.Err(). Later, wrong bytes are layerindex.ErrIndex. Closing
// the index ends what is being fetched.
func (s *Store) Far(ctx context.Context, l layerindex.Layer, opts *FarOptions) (*layerindex.Index, error) {
	file, err := name(l.Digest, "-"+FarKey(opts.Header))
	if err != nil {
		return nil, err
	}
	f := &farIndex{layer: l, opts: *opts}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	if f.opts.DiskFailed == nil {
		f.opts.DiskFailed = func(error) {}
	}
	if opts.Held != nil {
		if f.disk, err = holdPart(opts.Held, f.opts.MakeRoom, f.opts.DiskFailed); err != nil {
			f.cancel()
			return nil, err
		}
	} else if !remote.IsLocal(opts.Index) {
		f.disk = openPart(s.dir, file, f.opts.MakeRoom, f.opts.DiskFailed)
	}
	stop := context.AfterFunc(ctx, f.cancel) // until the index is open
	x, err := f.open(ctx)
	if !stop() && err == nil {
		x.Close()
		err = ctx.Err()
	}
	if err != nil {
		f.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	return x, nil
}

// A farIndex is what a published index is read from.
type farIndex struct {
	layer  layerindex.Layer
	opts   FarOptions
	ctx    context.Context // ends when the index is closed
	cancel context.CancelFunc
	disk   *partFile // nil: nothing is kept

	index, digests *pieceReader // nil if it is not open, or there are none
}

// Close implements io.Closer.
func (f *farIndex) Close() error {
	f.cancel()
	for _, r := range []*pieceReader{f.index, f.digests} {
		if r != nil {
			r.close()
		}
	}
	f.disk.close()
	return nil
}

// open opens the index, and fetches what a listing needs.
func (f *farIndex) open(ctx context.Context) (*layerindex.Index, error) {
	limit := patience{openLimit, time.Now().Add(openTime)}
	begin := make([]byte, min(f.opts.Listing, f.opts.Index.Size(), maxRequest))
	n := f.disk.readSome(begin)
	x, err := f.check(begin[:n])
	kept := err == nil
	if !kept {
		if err := request(f.ctx, f.opts.Index, begin, 0, limit); err != nil {
			return nil, err
		}
		if x, err = f.check(begin); err != nil {
			return nil, err
		}
	}
	pieces, err := x.Pieces()
	if err != nil {
		return nil, f.none(err)
	}
	start, _ := pieces.Bounds(0)
	f.index = &pieceReader{
		ctx: f.ctx, what: "the published index of " + f.layer.Digest.String(), blob: f.opts.Index, disk: f.disk, limit: limit,
		head: bytes.Clone(begin[:start]), load: func() (pieceTable, error) { return pieces, nil }, widen: widenTo(pieces, x),
	}
	if !kept {
		f.disk.writeAt(f.index.head, 0)
		f.keepWhole(pieces, begin)
	}
	if err := f.list(ctx, x.ListingEnd()); err != nil {
		return nil, err
	}
	f.index.limit, f.index.remade = patience{silence: readLimit}, true
	return f.published(x)
}

// check returns the index that some bytes are the beginning of, if it is the one that
// there should be.
func (f *farIndex) check(begin []byte) (*layerindex.Index, error) {
	x, err := layerindex.ReadIndex(bytes.NewReader(begin), f.opts.Index.Size())
	if err == nil {
		_, err = x.Pieces()
	}
	if err != nil {
		return nil, f.none(err)
	}
	switch {
	case x.HeaderSum() != f.opts.Header:
		err = fmt.Errorf("%w: its header has another checksum than was published", layerindex.ErrIndex)
	case x.Digest() != f.layer.Digest || x.BlobSize() != f.layer.Size || x.DiffID() != f.layer.DiffID:
		err = fmt.Errorf("%w: it is of the layer %s with %d bytes and the diff_id %s", layerindex.ErrIndex, x.Digest(), x.BlobSize(), x.DiffID())
	case x.Origin() != layerindex.OriginPass || x.Losses() != 0 || x.ProofKind() != layerindex.ProofChunks:
		err = fmt.Errorf("%w: it was not made by a pass over the layer", layerindex.ErrIndex)
	default:
		return x, nil
	}
	return nil, f.none(err)
}

// none says that there is no index of use.
func (f *farIndex) none(err error) error {
	return fmt.Errorf("%w: the published one: %w", ErrNone, err)
}

// keepWhole keeps those pieces that the first bytes of the file have whole, and right.
func (f *farIndex) keepWhole(pieces *layerindex.Pieces, begin []byte) {
	n := 0
	for n < pieces.Len() {
		off, end := pieces.Bounds(n)
		if end > int64(len(begin)) || !pieces.Match(n, begin[off:end]) {
			break
		}
		n++
	}
	if n > 0 {
		run := newPieceRun(pieces, 0, n-1)
		copy(run.data, begin[run.begin:])
		f.index.keep(run)
	}
}

// list reads the first bytes of the file, up to end, so that they are here and right.
func (f *farIndex) list(ctx context.Context, end int64) error {
	for off := int64(len(f.index.head)); off < end; off += maxRequest {
		if _, _, err := f.index.pieces(ctx, off, min(end, off+maxRequest)); err != nil {
			if errors.Is(err, layerindex.ErrIndex) {
				err = f.none(err)
			}
			return err
		}
	}
	return nil
}

// published returns the open index. x is the same, of which there is no more than its
// beginning.
func (f *farIndex) published(x *layerindex.Index) (*layerindex.Index, error) {
	if f.opts.Digests != nil && x.HasDigestPieces() {
		f.digests = &pieceReader{
			ctx: f.ctx, what: "the published content digests of " + f.layer.Digest.String(), blob: f.opts.Digests, disk: f.disk,
			at: f.opts.Index.Size(), limit: patience{silence: readLimit}, widen: func(first, last int) (int, int) { return first, last },
		}
	}
	var open *layerindex.Index
	var err error
	if f.digests == nil {
		open, err = layerindex.OpenPublished(f.index, f.opts.Index.Size(), nil, f)
	} else {
		f.digests.load = func() (pieceTable, error) { return open.DigestPieces() }
		open, err = layerindex.OpenPublished(f.index, f.opts.Index.Size(), f.digests, f)
	}
	if err != nil {
		return nil, f.none(err)
	}
	return open, nil
}

// widenTo has what each read needs, and no listing, be fetched at once when a part of it
// is missing.
func widenTo(pieces *layerindex.Pieces, x *layerindex.Index) func(first, last int) (int, int) {
	_, listed, ok := pieces.Range(x.ListingEnd()-1, x.ListingEnd())
	_, end, also := pieces.Range(x.ReadingEnd()-1, x.ReadingEnd())
	return func(first, last int) (int, int) {
		if !ok || !also || last < listed || first >= end {
			return first, last
		}
		return min(first, listed), max(last, end-1)
	}
}

// VerifyKey verifies a file of the store that was not made by reading the layer. Of an
// index that was published, pieces may be missing, and those that are there must be right.
// The error wraps layerindex.ErrIndex, or ErrNone if there is no such file, or is
// ctx.Err().
func (s *Store) VerifyKey(ctx context.Context, d digest.Digest, key string) error {
	file, err := name(d, "-"+key)
	if err != nil {
		return err
	}
	f, err := s.dir.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w of %s with the key %s", ErrNone, d, key)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	x, err := layerindex.ReadPart(f)
	if err == nil && x.Origin() != layerindex.OriginPass {
		whole, err := s.OpenKey(d, key)
		if err != nil {
			return err
		}
		defer whole.Close()
		return whole.Verify(ctx)
	}
	if err == nil && (x.Digest() != d || FarKey(x.HeaderSum()) != key) {
		err = fmt.Errorf("%w: %s is another index", layerindex.ErrIndex, f.Name())
	}
	if err != nil {
		return err
	}
	pieces, err := x.Pieces()
	if err == nil {
		err = verifyPieces(ctx, f, pieces, 0)
	}
	if err != nil || !x.HasDigestPieces() {
		return err
	}
	if pieces, err = x.DigestPieces(); err != nil {
		return nil // they are not here, and so nothing says what the digests are
	}
	return verifyPieces(ctx, f, pieces, x.EncodedSize())
}

// FarChunks returns the size of the chunks of a layer's blob, and the SHA-256 of each, 32
// bytes each in order, as a published index has them of which a part is here. The error
// wraps ErrNone if they are not in that part.
func (s *Store) FarChunks(d digest.Digest, key string) (size int64, sums []byte, err error) {
	file, err := name(d, "-"+key)
	if err != nil {
		return 0, nil, err
	}
	f, err := s.dir.Open(file)
	if err != nil {
		return 0, nil, fmt.Errorf("%w of %s with the key %s: %w", ErrNone, d, key, err)
	}
	defer f.Close()
	x, err := layerindex.ReadPart(f)
	if err == nil && (x.Digest() != d || FarKey(x.HeaderSum()) != key) {
		err = fmt.Errorf("%s is another index", f.Name())
	}
	if err == nil {
		sums, err = x.ChunkSums()
	}
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	return x.ChunkSize(), sums, nil
}

// verifyPieces verifies the pieces of some content that begins at byte at of a file.
func verifyPieces(ctx context.Context, f io.ReaderAt, pieces *layerindex.Pieces, at int64) error {
	for k := range pieces.Len() {
		if err := ctx.Err(); err != nil {
			return err
		}
		right := func() bool {
			off, end := pieces.Bounds(k)
			p := make([]byte, end-off)
			n, _ := f.ReadAt(p, at+off)
			return len(bytes.TrimLeft(p[:n], "\x00")) == 0 || pieces.Match(k, p)
		}
		if right() {
			continue
		}
		time.Sleep(writeTime)
		if !right() {
			return fmt.Errorf("%w: piece %d of %d has another checksum", layerindex.ErrIndex, k, pieces.Len())
		}
	}
	return nil
}
