package indexes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote"
)

const (
	// maxRequest bounds the bytes that are asked for at once.
	maxRequest = 4 << 20
	// heldOnDisk and heldAlone are how many pieces stay in memory: of content that is
	// kept on disk too, where they save reading and checking what was read last, and
	// of content that is not.
	heldOnDisk, heldAlone = 4, 128
)

// errSilent says that nothing came for too long, and errSlow that too little did.
var (
	errSilent = fmt.Errorf("%w: nothing came for too long", remote.ErrUnavailable)
	errSlow   = fmt.Errorf("%w: it comes too slowly", remote.ErrUnavailable)
)

// A patience is how long something is waited for.
type patience struct {
	silence time.Duration // while nothing comes
	end     time.Time     // until all has come; zero: for slowest times silence
}

// slowest is how many times as long as nothing may come a request may take. One that
// trickles would take for ever otherwise.
const slowest = 8

// from returns the patience of a request that begins now.
func (p patience) from(now time.Time) patience {
	if p.end.IsZero() {
		p.end = now.Add(slowest * p.silence)
	}
	return p
}

// left returns for how long to wait for more.
func (p patience) left() time.Duration { return min(p.silence, time.Until(p.end)) }

// A pieceTable says where pieces are and knows their checksums: a *layerindex.Pieces.
type pieceTable interface {
	Bounds(k int) (off, end int64)
	Range(off, end int64) (from, to int, ok bool)
	Match(k int, data []byte) bool
}

// A pieceReader is an io.ReaderAt of content elsewhere. It fetches pieces when they are
// first read, each once for all that wait for it, and checks a piece whenever it comes
// from the network or from disk. It is safe for concurrent use.
type pieceReader struct {
	ctx  context.Context // ends when the content is closed
	what string          // for messages
	blob remote.Blob
	head []byte // what comes before the pieces; it has been checked
	// load returns the pieces, of which the first begins behind head.
	load func() (pieceTable, error)
	// widen returns which pieces to fetch when those from first to last are missing.
	widen func(first, last int) (int, int)
	disk  *partFile
	at    int64 // where on disk the content begins
	limit patience
	// remade says that whoever cannot have a piece can do without the content, and
	// make it: then that is layerindex.ErrIndex, too.
	remade bool

	flying sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	flights map[int]*pieceFlight
	held    map[int][]byte
	order   []int // of held, the oldest first
}

// ReadAt implements io.ReaderAt. The error wraps layerindex.ErrIndex if wrong bytes
// came, and else is the blob's.
func (r *pieceReader) ReadAt(p []byte, off int64) (int, error) { return r.read(r.ctx, p, off) }

// read is ReadAt, and returns ctx.Err() when ctx ends. What it waits for goes on.
func (r *pieceReader) read(ctx context.Context, p []byte, off int64) (int, error) {
	size := r.blob.Size()
	if off < 0 || off >= size {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), size-off)]
	n := 0
	if off < int64(len(r.head)) {
		n = copy(want, r.head[off:])
	}
	for n < len(want) {
		// Not more at a time than is asked for at once.
		end := min(off+int64(len(want)), off+int64(n)+maxRequest)
		data, begin, err := r.pieces(ctx, off+int64(n), end)
		if err != nil {
			return n, err
		}
		n += copy(want[n:], data[off+int64(n)-begin:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// pieces returns the bytes of the pieces that hold those from off to end, and where the
// first of them begins.
func (r *pieceReader) pieces(ctx context.Context, off, end int64) (data []byte, begin int64, err error) {
	all, err := r.load()
	if err != nil {
		return nil, 0, err
	}
	first, to, ok := all.Range(off, end)
	if !ok {
		return nil, 0, fmt.Errorf("%w: %s: bytes %d to %d are in no piece", layerindex.ErrIndex, r.what, off, end)
	}
	run := newPieceRun(all, first, to-1)
	var missing []int
	for k := first; k < to; k++ {
		if !r.stored(run, k) {
			missing = append(missing, k)
		}
	}
	for len(missing) > 0 {
		n := 1 // pieces that follow each other
		for n < len(missing) && missing[n] == missing[n-1]+1 {
			n++
		}
		f := r.board(all, missing[0], missing[n-1])
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
		if f.err != nil {
			return nil, 0, f.err
		}
		for len(missing) > 0 && missing[0] <= f.last {
			copy(run.piece(missing[0]), f.piece(missing[0]))
			missing = missing[1:]
		}
	}
	return run.data, run.begin, nil
}

// A pieceRun has the bytes of some pieces that follow each other.
type pieceRun struct {
	all         pieceTable
	first, last int
	begin       int64 // of the first
	data        []byte
}

func newPieceRun(all pieceTable, first, last int) *pieceRun {
	begin, _ := all.Bounds(first)
	_, end := all.Bounds(last)
	return &pieceRun{all: all, first: first, last: last, begin: begin, data: make([]byte, end-begin)}
}

// piece returns the bytes of piece k, which is one of the run.
func (r *pieceRun) piece(k int) []byte {
	off, end := r.all.Bounds(k)
	return r.data[off-r.begin : end-r.begin]
}

// stored reads piece k of a run from memory or disk, and reports whether it is there.
func (r *pieceReader) stored(run *pieceRun, k int) bool {
	p := run.piece(k)
	r.mu.Lock()
	held := r.held[k]
	r.mu.Unlock()
	if held != nil {
		copy(p, held)
		return true
	}
	off, _ := run.all.Bounds(k)
	if !r.disk.readAt(p, r.at+off) || !run.all.Match(k, p) {
		return false
	}
	r.hold(k, p, true)
	return true
}

// hold keeps piece k in memory for a while.
func (r *pieceReader) hold(k int, p []byte, onDisk bool) {
	limit := heldAlone
	if onDisk {
		limit = heldOnDisk
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held[k] != nil {
		return
	}
	if r.held == nil {
		r.held = make(map[int][]byte)
	}
	for len(r.order) >= limit {
		delete(r.held, r.order[0])
		r.order = r.order[1:]
	}
	r.held[k] = bytes.Clone(p)
	r.order = append(r.order, k)
}

// A pieceFlight is the fetching of some pieces.
type pieceFlight struct {
	*pieceRun
	done chan struct{} // closed when all data is there, or err is set
	err  error
}

// board returns the flight that brings piece k, and as many of the following up to last
// as it can.
func (r *pieceReader) board(all pieceTable, k, last int) *pieceFlight {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.flights[k]; f != nil {
		return f
	}
	first, last := r.widen(k, last)
	for i := k; i > first; i-- { // up to what others fetch
		if r.flights[i-1] != nil {
			first = i
		}
	}
	to := k
	for to < last && r.flights[to+1] == nil {
		to++
	}
	f := &pieceFlight{pieceRun: newPieceRun(all, first, to), done: make(chan struct{})}
	if r.closed {
		f.err = fs.ErrClosed
		close(f.done)
		return f
	}
	if r.flights == nil {
		r.flights = make(map[int]*pieceFlight)
	}
	for i := first; i <= to; i++ {
		r.flights[i] = f
	}
	r.flying.Go(func() { r.fly(f) })
	return f
}

// fly brings the pieces of a flight.
func (r *pieceReader) fly(f *pieceFlight) {
	if !r.arrived(f.pieceRun) { // else a flight has ended between the look at the disk and this one
		if f.err = r.fetch(f.pieceRun); f.err == nil {
			r.keep(f.pieceRun)
		} else if r.remade && r.ctx.Err() == nil && !errors.Is(f.err, layerindex.ErrIndex) {
			f.err = fmt.Errorf("%w: %s: %w", layerindex.ErrIndex, r.what, f.err)
		}
	}
	r.mu.Lock()
	for i := f.first; i <= f.last; i++ {
		delete(r.flights, i)
	}
	r.mu.Unlock()
	close(f.done)
}

// arrived reports whether all pieces of a run are here, and reads them.
func (r *pieceReader) arrived(run *pieceRun) bool {
	for k := run.first; k <= run.last; k++ {
		if !r.stored(run, k) {
			return false
		}
	}
	return true
}

// keep keeps the pieces of a run, on disk or else in memory.
func (r *pieceReader) keep(run *pieceRun) {
	onDisk := r.disk.writeAt(run.data, r.at+run.begin)
	for k := run.first; k <= run.last; k++ {
		r.hold(k, run.piece(k), onDisk)
	}
}

// fetch asks for the pieces of a run, and checks them. Those that are wrong are asked for
// once more, if there is another place to ask.
func (r *pieceReader) fetch(run *pieceRun) error {
	for off := 0; off < len(run.data); off += maxRequest {
		part := run.data[off:min(off+maxRequest, len(run.data))]
		if err := request(r.ctx, r.blob, part, run.begin+int64(off), r.limit); err != nil {
			return err
		}
	}
	for k := run.first; k <= run.last; k++ {
		piece := run.piece(k)
		if run.all.Match(k, piece) {
			continue
		}
		off, end := run.all.Bounds(k)
		if b, ok := r.blob.(remote.ElsewhereBlob); ok {
			if err := request(r.ctx, elsewhere{b}, piece, off, r.limit); err != nil {
				return err
			}
		}
		if !run.all.Match(k, piece) {
			return fmt.Errorf("%w: %s: bytes %d to %d have another checksum: %w", layerindex.ErrIndex, r.what, off, end-1, remote.ErrDigest)
		}
	}
	return nil
}

// close lets nothing be fetched any more, and waits until nothing is. The context has
// ended.
func (r *pieceReader) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.flying.Wait()
}

// An elsewhere is a blob as other places than the first have it.
type elsewhere struct{ remote.ElsewhereBlob }

// ReadAt implements remote.Blob.
func (b elsewhere) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return b.ReadElsewhere(ctx, p, off)
}

// request reads a range of a blob, and gives up when the patience is at its end.
func request(ctx context.Context, b remote.Blob, p []byte, off int64, limit patience) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	limit = limit.from(time.Now())
	timer := time.AfterFunc(limit.left(), func() {
		if time.Now().Before(limit.end) {
			cancel(errSilent)
		} else {
			cancel(errSlow)
		}
	})
	defer timer.Stop()
	arrived := func(int) { timer.Reset(limit.left()) }
	var n int
	var err error
	if progress, ok := b.(remote.ProgressBlob); ok {
		n, err = progress.ReadAtProgress(ctx, p, off, arrived)
	} else {
		n, err = b.ReadAt(ctx, p, off)
	}
	if n == len(p) {
		return nil
	}
	if cause := context.Cause(ctx); errors.Is(cause, errSilent) || errors.Is(cause, errSlow) {
		return fmt.Errorf("blob %s: %w", b.Digest(), cause)
	}
	if err == io.EOF {
		err = fmt.Errorf("%w: %w", remote.ErrDigest, io.ErrUnexpectedEOF)
	}
	return err
}
