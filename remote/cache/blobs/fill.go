package blobs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

const (
	// fillRequest is how much Fill asks for at once while nothing is known of
	// the line, and maxFillRequest how much at most; one chunk is always
	// allowed. A reader that comes meanwhile waits that much longer.
	fillRequest, maxFillRequest = 512 << 10, 2 << 20
	// minFills and maxFills bound how many requests of Fill are under way:
	// more than one, so that the line is not idle for a round trip between two.
	minFills, maxFills = 2, 8
	// A request that took less than fastFill, not counting the round trip,
	// says that there can be one more, one that took longer than slowFill,
	// one less.
	fastFill, slowFill = 50 * time.Millisecond, 150 * time.Millisecond
	// minPause and maxPause bound the pause after an error of the source.
	minPause, maxPause = time.Second, time.Minute
	// maxHopeless is how many rounds in a row may bring nothing but errors
	// that asking again does not mend.
	maxHopeless = 3
)

// Fill brings all that is missing of some blobs, in their order, while nobody
// reads: it begins nothing while readers wait for something. Blobs that are
// local are left out. progress, if not nil, is called with the bytes that are
// there of all bytes, by one goroutine at a time.
//
// It returns nil when all is there. After an error of the source it goes on,
// pauses and tries again, except when several rounds brought nothing and every
// error says that there is no use (ErrNotFound, ErrUnauthorized and ErrDigest
// of package remote): it returns the last. When ctx ends it returns ctx.Err()
// at once, with the last error of the source, if there was one, wrapped too.
// ErrFull, wrapped, means that disk or budget have no room for the rest.
// What is there stays, and another Fill goes on from it.
func (c *Cache) Fill(ctx context.Context, blobs []*Blob, progress func(have, all int64)) error {
	f := filler{c: c, progress: progress, width: minFills, results: make(chan fillResult)}
	seen := map[*blobState]bool{}
	for _, b := range blobs {
		if !b.s.local && !seen[b.s] {
			seen[b.s] = true
			f.blobs = append(f.blobs, &filled{Blob: b, end: b.s.Layout.Chunks()})
			f.all += b.s.total()
		}
	}
	return f.run(ctx)
}

// A Range is the bytes from Off to End of a blob.
type Range struct {
	Blob     *Blob
	Off, End int64
}

// FillRanges is Fill for parts of blobs: it brings the chunks that they lie in.
func (c *Cache) FillRanges(ctx context.Context, ranges []Range) error {
	f := filler{c: c, width: minFills, results: make(chan fillResult)}
	for _, r := range ranges {
		s := r.Blob.s
		off, end := max(r.Off, 0), min(r.End, s.Size)
		if s.local || off >= end {
			continue
		}
		first, stop := s.Span(off, end)
		f.blobs = append(f.blobs, &filled{Blob: r.Blob, first: first, end: stop})
	}
	return f.run(ctx)
}

// A filler is one call of Fill.
type filler struct {
	c        *Cache
	blobs    []*filled
	all      int64
	progress func(have, all int64)

	width   int // requests that may be under way
	running int
	results chan fillResult
	last    error // of the source
	fatal   error
	// Of this round: whether there were errors, and others than permanent ones.
	failed, passing bool
}

// filled is a blob that Fill brings.
type filled struct {
	*Blob
	first, end int64 // the chunks to bring
	have       int64 // bytes on disk
	refused    bool  // in this round: the source cannot be asked
}

type fillResult struct {
	blob *filled
	n    int64
	took time.Duration
	err  error
}

func (f *filler) run(ctx context.Context) error {
	pause, hopeless := minPause, 0
	for {
		before := f.count()
		f.failed, f.passing = false, false
		tried, err := f.round(ctx)
		if err == nil {
			err = f.fatal
		}
		if ctx.Err() != nil && f.last != nil {
			return fmt.Errorf("%w; before that: %w", ctx.Err(), f.last)
		}
		if err != nil {
			return err
		}
		after := f.count()
		switch {
		case !tried:
			return nil
		case !f.failed:
			// It may be that others have removed something meanwhile.
			if after <= before {
				return f.noRoom()
			}
			continue
		case after > before:
			pause, hopeless = minPause, 0
		case !f.passing:
			if hopeless++; hopeless == maxHopeless {
				return f.last
			}
		default:
			hopeless = 0
		}
		if err := sleep(ctx, pause); err != nil {
			return fmt.Errorf("%w; before that: %w", err, f.last)
		}
		pause = min(2*pause, maxPause)
	}
}

func (f *filler) noRoom() error {
	return fmt.Errorf("cache directory %s: %w for all of the image", f.c.dir.Path(), directory.ErrFull)
}

// count looks at how much is there.
func (f *filler) count() int64 {
	for _, b := range f.blobs {
		b.have = b.s.presentBytes()
	}
	f.tell()
	return f.have()
}

func (f *filler) tell() {
	if f.progress != nil {
		f.progress(f.have(), f.all)
	}
}

// have returns how much is there.
func (f *filler) have() int64 {
	n := int64(0)
	for i, b := range f.blobs {
		if i == 0 || f.blobs[i-1].s != b.s { // else another part of the same
			n += b.have
		}
	}
	return n
}

// round asks once for everything that is missing, but for a blob whose source
// fails. It reports whether there was anything.
func (f *filler) round(ctx context.Context) (tried bool, err error) {
	defer func() {
		for f.running > 0 {
			f.take(<-f.results)
		}
	}()
	for _, b := range f.blobs {
		b.refused = false
		for next := b.first; ; {
			// Requests that begin together end together, and then the line
			// would be idle for a round trip: the first is a short one.
			size := f.c.sched.line.stats().fill(b.s.Chunk)
			most := size
			if f.running == 0 {
				most /= 2
			}
			first, end := b.s.lacking(next, b.end, most)
			if first == end || b.refused {
				break
			}
			tried, next = true, end
			for f.running >= f.width {
				f.take(<-f.results)
			}
			if err := f.c.sched.quiet(ctx); err != nil || f.fatal != nil {
				return tried, err
			}
			if budget := f.c.dir.Budget(); budget > 0 && f.have()+int64(f.running+1)*size > budget {
				return tried, f.noRoom()
			}
			f.running++
			go f.bring(ctx, b, first, end)
		}
	}
	return tried, nil
}

// lacking returns the first run of chunks from next to limit that are not on disk,
// of at most n bytes; one chunk is always allowed.
func (s *blobState) lacking(next, limit, n int64) (first, end int64) {
	n = min(n, s.perRequest())
	file := s.openFileTo(false)
	switch {
	case next >= limit:
		return next, next
	case file == nil:
		return next, s.run(next, limit, n)
	}
	most := int64(0) // the end of what one request may bring
	for k := range s.absent(file, next, true) {
		switch {
		case k >= limit:
			return first, end
		case first == end:
			first, end = k, k+1
			most = s.run(k, limit, n)
		case k > end || k == most:
			return first, end
		default:
			end++
		}
	}
	return first, end
}

// bring brings one run of chunks.
func (f *filler) bring(ctx context.Context, b *filled, first, end int64) {
	began := time.Now()
	err := b.s.bring(ctx, b.Blob, first, end, forFill)
	at, _ := b.s.Bounds(first)
	_, stop := b.s.Bounds(end - 1)
	f.results <- fillResult{b, stop - at, time.Since(began), err}
}

// bring brings the chunks from first to end to the disk, with no reader.
func (s *blobState) bring(ctx context.Context, b *Blob, first, end int64, why reason) error {
	flights, err := s.board(ctx, b, first, end, why)
	if err != nil {
		return err
	}
	defer s.leave(flights)
	for _, f := range flights {
		if err := f.await(ctx, first, end); err != nil {
			return err
		}
	}
	for _, w := range s.words(first, end) {
		if w == 0 {
			return fmt.Errorf("cache directory %s: %w for blob %s", s.c.dir.Path(), directory.ErrFull, s.digest)
		}
	}
	return nil
}

// take looks at how a request has ended.
func (f *filler) take(r fillResult) {
	f.running--
	switch {
	case r.err == nil:
		r.blob.have += r.n
		f.tell()
		switch took := r.took - f.c.sched.line.stats().Trip; {
		case took < fastFill:
			f.width = min(f.width+1, maxFills)
		case took > slowFill:
			f.width = max(f.width-1, minFills)
		}
	case errors.Is(r.err, directory.ErrFull), errors.Is(r.err, fs.ErrClosed):
		f.fatal = r.err
	case errors.Is(r.err, context.Canceled), errors.Is(r.err, context.DeadlineExceeded):
		// Of ctx, or of a flight that somebody else began and gave up.
	default:
		f.last, f.failed = r.err, true
		f.passing = f.passing || !permanent(r.err)
		// One wrong chunk says nothing of the others.
		r.blob.refused = !errors.Is(r.err, remote.ErrDigest) || r.blob.s.refuted() != nil
	}
}
