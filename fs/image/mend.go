package image

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"sync"
	"time"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/reader"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/blobs"
	"github.com/imgfs/imgfs/remote/cache/indexes"
	"github.com/imgfs/imgfs/remote/indexrepo"
)

// An index may be found to be wrong while its layer is mounted: its file has
// changed, or what is read of the layer is not what it says, which means that
// source and index disagree. Then another index is loaded, or made, and the layer
// is read by that one, if it lists the same entries as the tree was made of.

const (
	// Between two tries to load or make an index again there are minMendPause,
	// and more after each try, up to maxMendPause.
	minMendPause, maxMendPause = time.Second, time.Minute
	// doubtPause is the time between two tries after source and index disagreed
	// and it could not be told which of them is wrong: telling takes all of the
	// layer.
	doubtPause = 10 * time.Minute
)

// A layerState is the index, blob and reader that a layer is read by. It never
// changes, but for the digests that it has loaded.
type layerState struct {
	index  *layerindex.Index
	blob   *blobs.Blob
	prover *reader.Prover // nil if the index has chunks
	reader *reader.Reader
	large  largeDigests
	use    IndexUse
	// key is what the store calls the index, "" if it was made here.
	key string
	// again makes the index once more of what it was made of; nil for one that was made
	// here, or is far away.
	again func(ctx context.Context) (*layerindex.Index, error)
	// published is where the index is, if that is a place for published ones.
	published *indexrepo.Published
	// places says where contents are that the tree has elsewhere, as it was made of
	// another index.
	places placesTable
	// proven says that this process made the index, of bytes with the layer's
	// digest.
	proven bool
	// mended says that it took the place of another state.
	mended bool
	// wrong, if not nil, is why nothing can be read.
	wrong error
}

// refuted returns why nothing may be read by the state, also of what is in memory.
func (s *layerState) refuted() error {
	if s.wrong != nil {
		return s.wrong
	}
	return s.blob.Refuted()
}

// A mender replaces the state of a layer.
type mender struct {
	ctx    context.Context // ends with the layer
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu    sync.Mutex
	try   *mendTry // under way, or nil
	next  time.Time
	pause time.Duration
	doubt time.Time     // until then nothing is tried for a mere doubt
	old   []*layerState // replaced: reads of them may still be under way

	proving chan struct{} // has an element while somebody checks the layer
}

// replace puts a state in the place of another, unless that has happened.
func (m *mender) replace(l *Layer, was, s *layerState) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !l.state.CompareAndSwap(was, s) {
		was = s
	}
	m.old = append(m.old, was)
	l.opener.others.img.reheld.tell()
}

type mendTry struct {
	over chan struct{} // closed when ok is set
	ok   bool
}

// start makes the layer readable by a state.
func (l *Layer) start(s *layerState) {
	// It ends with the layer, and with no caller.
	l.mend.ctx, l.mend.cancel = context.WithCancel(context.Background())
	l.mend.pause = minMendPause
	l.mend.proving = make(chan struct{}, 1)
	l.opened = s
	l.state.Store(s)
}

// interrupt ends what waits for parts of an index that is far away, so that closing the
// layer does not. Whoever reads such parts later fails.
func (l *Layer) interrupt() {
	l.mend.cancel()
	if s := l.state.Load(); s.index.Far() {
		s.index.Close()
	}
}

// close closes all that the layer was read by. Reads fail from then on, also of what
// is in memory, and whether or not the cache is closed too.
func (l *Layer) close() {
	l.interrupt()
	m := &l.mend
	m.mu.Lock()
	m.next = time.Now().AddDate(1, 0, 0) // no more
	m.mu.Unlock()
	m.work.Wait()
	last := l.state.Load()
	l.state.Store(&layerState{
		index: last.index, blob: last.blob, reader: last.reader, use: last.use,
		wrong: iofs.ErrClosed,
	})
	for _, s := range append(m.old, last) {
		// Closing what was only read from loses nothing.
		s.reader.Close()
		s.index.Close()
	}
}

func (s *layerState) read(ctx context.Context, p []byte, off, end int64) (int, error) {
	if err := s.refuted(); err != nil {
		return 0, err
	}
	at := s.places.find(off)
	return s.reader.ReadFileAt(ctx, p, at, at+end-off)
}

// doubtful reports whether an error of a read may be the index's fault.
func (s *layerState) doubtful(err error) bool {
	if s.wrong != nil {
		return false // there is no other
	}
	if errors.Is(err, layerindex.ErrIndex) {
		return true
	}
	// The bytes lack the sum that they should have, or have it and cannot be
	// decoded.
	return s.blob.Refuted() != nil || !s.proven && (errors.Is(err, remote.ErrDigest) || errors.Is(err, layerindex.ErrCompressed))
}

// mereDoubt reports whether an error leaves open whether the index is wrong.
func (s *layerState) mereDoubt(err error) bool {
	return !errors.Is(err, layerindex.ErrIndex) && s.blob.Refuted() == nil
}

// replaced reports whether another state has taken the place of the one that a
// read failed with. The error may begin a try to replace it, which replaced waits
// for.
func (l *Layer) replaced(ctx context.Context, was *layerState, cause error) bool {
	if !was.doubtful(cause) {
		return false
	}
	try := l.beginMend(was, cause)
	if try == nil {
		return l.state.Load() != was
	}
	select {
	case <-try.over:
		return try.ok
	case <-ctx.Done():
		return false
	}
}

// beginMend begins to replace a state. It returns nil if it is too early for that,
// or the state has been replaced.
func (l *Layer) beginMend(was *layerState, cause error) *mendTry {
	m := &l.mend
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if m.try != nil || l.state.Load() != was || now.Before(m.next) || now.Before(m.doubt) && was.mereDoubt(cause) {
		return m.try
	}
	m.try = &mendTry{over: make(chan struct{})}
	m.work.Add(1)
	go l.runMend(m.try, was, cause)
	return m.try
}

// runMend does one try.
func (l *Layer) runMend(try *mendTry, was *layerState, cause error) {
	m := &l.mend
	defer m.work.Done()
	s, err := l.other(m.ctx, was, cause)
	if err != nil && m.ctx.Err() == nil && !was.mereDoubt(cause) { // else the reader's error says enough
		l.opener.warnf("layer %s: %v; its index could not be made again: %v", l.Digest(), cause, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s != nil && !l.state.CompareAndSwap(was, s) {
		m.old = append(m.old, s)
	} else if s != nil {
		m.old = append(m.old, was)
	}
	try.ok = s != nil
	l.opener.others.img.reheld.tell()
	if time.Since(m.next) > maxMendPause {
		m.pause = minMendPause
	}
	if m.ctx.Err() == nil {
		m.next = time.Now().Add(m.pause)
	}
	m.pause = min(2*m.pause, maxMendPause)
	if s == nil && was.mereDoubt(cause) {
		m.doubt = time.Now().Add(doubtPause)
	}
	m.try = nil
	close(try.over)
}

// other returns a state to read the layer by in place of one that failed.
func (l *Layer) other(ctx context.Context, was *layerState, cause error) (*layerState, error) {
	if was.use.Vouched != VouchedHere {
		s, err := l.prove(ctx, was, was.index.Far() && errors.Is(cause, layerindex.ErrIndex))
		if err == nil && s.wrong == nil {
			l.opener.warnf("layer %s: its index, of %s, was of no use (%v); it is read by one that was made here", l.Digest(), was.use, cause)
		}
		return s, err
	}
	// If the index file was damaged, any undamaged one will do. If what it says
	// is in doubt, another that says the same is no better.
	doubted := was.index
	if errors.Is(cause, layerindex.ErrIndex) && (was.proven || !was.mended) {
		doubted = nil
	}
	o, claim := l.opener, claimOf(l.Layer)
	x, err := o.load(ctx, claim, doubted)
	built := false
	if errors.Is(err, indexes.ErrNone) {
		x, built, err = o.make(ctx, l.number, l.Layer, claim, doubted)
	}
	if err != nil {
		return nil, err
	}
	s, err := o.connect(l.Layer, x, useHere())
	if err != nil {
		x.Close()
		return nil, err
	}
	s.mended, s.proven, s.places = true, built, was.places
	switch {
	case !x.SameEntries(was.index):
		s.wrong = fmt.Errorf("layer %s: its index was wrong, and with it the names in this tree; it has been made again: %w", l.Digest(), ErrReopen)
	case !x.Equal(was.index):
		o.warnf("layer %s: its index was wrong (%v); it has been made again", l.Digest(), cause)
	case doubted == nil:
		o.warnf("layer %s: its index file was damaged (%v); it has been read again", l.Digest(), cause)
	}
	if s.wrong != nil {
		o.warnf("%v", s.wrong)
	}
	return s, nil
}

func claimOf(l remote.Layer) layerindex.Layer {
	return layerindex.Layer{Digest: l.Digest(), Size: l.Size(), DiffID: l.DiffID}
}
