package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/reader"
	"github.com/imgfs/imgfs/remote"
)

// Whoever reads a layer from its beginning to its end needs no windows. An index of
// others that has wrong ones gives wrong bytes to who reads in the middle alone, so each
// of its spans is entered by itself.

// spans compares what the spans of theirs decode to with what the layer has there. It is
// for indexes of a tar: in contents space members are entered without a window, and
// proofs are of what comes out. Of an index that is far away parts may be missing: nobody
// has got anything by those.
func (c *comparison) spans(ctx context.Context) error {
	if c.theirs.Space() != layerindex.SpaceTar || c.theirs.Codec() == layerindex.Plain {
		return nil
	}
	spans, err := c.theirs.Spans()
	switch {
	case err != nil && c.theirs.Far() && (cannotBeHad(err) || ctx.Err() != nil):
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("%w: %w", errDisagree, err)
	}
	size := c.theirs.Size()
	if size > c.ours.Size() {
		return fmt.Errorf("%w: it has %d bytes, not %d", errDisagree, c.ours.Size(), size)
	}
	end := func(i int) int64 {
		if i+1 < spans.Len() {
			out, _ := spans.Start(i + 1)
			return min(out, size)
		}
		return size
	}
	sums := make([][sha256.Size]byte, spans.Len())
	for i := range sums {
		out, _ := spans.Start(i)
		if sums[i], err = c.sumOf(ctx, c.oursAt, out, end(i)); err != nil {
			return err
		}
	}
	// From behind no reader has a decoder that is where the span begins.
	for i, missed := len(sums)-1, time.Duration(0); i >= 0 && missed < missTime; i-- {
		out, _ := spans.Start(i)
		begin := time.Now()
		sum, err := c.sumOf(ctx, c.theirsAt, out, end(i))
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case c.theirs.Far() && cannotBeHad(err):
			missed += time.Since(begin) // others may be here
		case errors.Is(err, layerindex.ErrIndex), errors.Is(err, layerindex.ErrCompressed):
			return c.wrongSpan(ctx, out, end(i), err)
		case err != nil:
			return err
		case sum != sums[i]:
			return c.wrongSpan(ctx, out, end(i), errors.New("it decodes to other bytes"))
		}
	}
	return nil
}

// missTime is how long parts of an index are asked for that cannot be had: as others are
// here it goes on if that is said at once.
const missTime = time.Second

// cannotBeHad reports whether an error is of what an index is read from: nothing is known
// to be wrong with the index.
func cannotBeHad(err error) bool {
	for _, target := range []error{remote.ErrUnavailable, remote.ErrNotFound, remote.ErrUnauthorized, remote.ErrDigest} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// sumOf returns the digest of a range of the tar.
func (c *comparison) sumOf(ctx context.Context, r *reader.Reader, off, end int64) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	for off < end {
		p := c.buf[:min(end-off, comparePiece)]
		if err := readFull(ctx, r, p, off, end); err != nil {
			return sum, err
		}
		h.Write(p)
		off += int64(len(p))
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// wrongSpan is the error of a span, with the first entry that has bytes in it.
func (c *comparison) wrongSpan(ctx context.Context, off, end int64, why error) error {
	list, err := c.ours.List(ctx, nil)
	if err != nil {
		return err
	}
	for e := range list.All() {
		if e.Type == layerindex.TypeReg && e.Off < end && e.Off+e.Size > off {
			return fmt.Errorf("%w: the content of entry %q, in bytes %d to %d of the tar: %w", errDisagree, e.Name, off, end, why)
		}
	}
	return fmt.Errorf("%w: bytes %d to %d of the tar: %w", errDisagree, off, end, why)
}
