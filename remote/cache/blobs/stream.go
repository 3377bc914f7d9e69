package blobs

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

const (
	// streamLinger is how long a stream of a blob that is not stored waits for
	// the next reader when it has served all of them: to come back later costs
	// the blob from its beginning.
	streamLinger = 250 * time.Millisecond
	// streamGather is how long such a stream waits at its beginning for reads
	// that come together, and streamNear how many bytes of it, between one read
	// and the next, are kept in memory for a read that comes a little late.
	streamGather = 5 * time.Millisecond
	streamNear   = maxRecent / 4
	// streamIdle is how long a stream goes on trying when nothing comes and
	// nobody waits for it.
	streamIdle = 30 * time.Second
)

// errStreamOver: nobody needs more of a stream.
var errStreamOver = errors.New("no more of the stream is needed")

// A stream brings a blob whose source does not serve ranges (remote.WholeBlob).
// As chunks come they are checked, stored, and handed to the flights that wait
// for them. A blob has at most one stream at a time.
//
// If there is room for the blob, the stream goes on to the last chunk that is
// not on disk, whether or not a flight waits, and takes room as recordings do.
// Otherwise it goes only as far as flights wait, and what these get is all that
// is stored.
//
// A stream belongs to its goroutine, except for the fields that blobState.mu
// guards. It implements io.Writer for remote.WholeBlob.
type stream struct {
	s     *blobState
	owner *Blob // whose source it reads
	ctx   context.Context
	idle  *time.Timer // ends it when nothing comes
	last  int64       // the last chunk that was not on disk
	at    int64       // where buf begins in the blob
	buf   []byte      // what has come from chunk next on

	// Guarded by blobState.mu:

	room  bool
	next  int64         // the chunk that comes next
	since time.Time     // when it began, or something came last
	wake  chan struct{} // holds an element when a flight began to wait
}

// startStream begins a stream for the flights that wait. The caller holds s.mu.
func (s *blobState) startStream(owner *Blob) {
	for _, w := range s.waiting {
		w.behind = false
	}
	t := &stream{s: s, owner: owner, room: true, since: time.Now(), wake: make(chan struct{}, 1)}
	s.stream = t
	s.c.dir.Go(func() {
		ctx, cancel := context.WithCancel(s.ctx)
		defer cancel()
		t.ctx = ctx
		t.idle = time.AfterFunc(streamIdle, func() { t.endIdle(cancel) })
		err := t.run()
		t.idle.Stop()
		t.finish(err)
	})
}

// endIdle ends a stream that brings nothing unless flights wait for it.
func (t *stream) endIdle(cancel context.CancelFunc) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	if len(t.s.waiting) == 0 {
		cancel()
		return
	}
	t.idle.Reset(streamIdle)
}

// run reads the blob from where something is missing.
func (t *stream) run() error {
	s := t.s
	room, next := s.hasRoom(), s.Layout.Chunks()
	if file := s.openFile(); file == nil {
		room = false
	} else if room {
		for k := range s.absent(file, 0, true) {
			next, t.last = min(next, k), k
		}
	}
	if !room {
		if err := sleep(t.ctx, streamGather); err != nil {
			return err
		}
	}
	s.mu.Lock()
	for _, w := range s.waiting {
		next = min(next, w.first)
	}
	t.room, t.next = room, next
	s.mu.Unlock()
	if room {
		s.c.dir.BeginRecording()
		defer func() {
			if file := s.openFileTo(false); file != nil && file.complete() {
				s.c.dir.EndRecording(s.digest)
				return
			}
			s.c.dir.EndRecording("")
		}()
	}
	t.at = s.Begin(next)
	err := t.owner.src.(remote.WholeBlob).ReadWhole(t.ctx, t, t.at)
	t.count(0)
	return err
}

// finish ends the stream. If it failed, the flights that waited for most of the
// time in which nothing came fail as well. For the others, which came too late for what
// had gone by, another one begins.
func (t *stream) finish(err error) {
	s := t.s
	if file := s.file.Load(); file != nil {
		s.noteComplete(file, t.owner.cuts)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stream = nil
	if err == nil && t.next < s.Layout.Chunks() {
		err = io.ErrUnexpectedEOF
	}
	over, late := err == nil || errors.Is(err, errStreamOver), t.since.Add(time.Since(t.since)/2)
	if s.closed {
		err = s.closedError()
	}
	s.waiting = slices.DeleteFunc(s.waiting, func(w *streamWaiter) bool {
		if !s.closed && (over || w.since.After(late)) {
			return false
		}
		w.err = err
		close(w.done)
		return true
	})
	if len(s.waiting) > 0 {
		s.countRequest()
		s.startStream(s.waiting[0].f.owner)
	}
}

// hasRoom reports whether all of the blob may be stored though only a part of it
// was asked for.
func (s *blobState) hasRoom() bool {
	if !s.c.dir.MayKeep() {
		return false
	}
	// What else is cached does not have to go for it where the disk is full.
	if err := s.c.dir.RoomFor(s.FileSize(), s.Size-s.presentBytes()); err != nil {
		s.c.dir.WarnDisk(err)
		return false
	}
	return true
}

// Write takes the next bytes of the blob.
func (t *stream) Write(p []byte) (int, error) {
	t.idle.Reset(streamIdle)
	t.count(int64(len(p)))
	t.buf = append(t.buf, p...)
	for {
		t.drop()
		end := t.complete()
		if end == t.next {
			return len(p), nil
		}
		_, stop := t.s.Bounds(end - 1)
		t.takeAll(end, t.buf[:stop-t.at])
		if err := t.goOn(); err != nil {
			return len(p), err
		}
	}
}

// drop drops what has come before chunk next.
func (t *stream) drop() {
	if n := min(t.s.Begin(t.next)-t.at, int64(len(t.buf))); n > 0 {
		t.buf = append(t.buf[:0], t.buf[n:]...)
		t.at += n
	}
}

// count counts what has come, of which n bytes are of the blob from where the stream
// is.
func (t *stream) count(n int64) {
	came := remote.Received(t.owner.src, n)
	t.s.addFetched(came)
	t.s.count.wasted.Add(came - n)
}

// complete returns the end of the chunks from next on that have come and are to
// be looked at together. Chunks that are not stored are looked at one by one,
// since each may have to wait for a read.
func (t *stream) complete() int64 {
	end := t.next
	for end < t.s.Layout.Chunks() && (t.room || end == t.next) {
		if _, stop := t.s.Bounds(end); stop-t.at > int64(len(t.buf)) {
			break
		}
		end++
	}
	return end
}

// takeAll looks at the chunks up to end, which data is.
func (t *stream) takeAll(end int64, data []byte) {
	s := t.s
	first, run := t.next, t.next
	base, _ := s.Bounds(first)
	words := s.words(first, end)
	take := func(stop int64) {
		if run < stop {
			at, _ := s.Bounds(run)
			_, to := s.Bounds(stop - 1)
			t.take(run, stop, data[at-base:to-base])
		}
		run = stop
	}
	most := s.c.writeSize()
	for k := first; k < end; k++ {
		if s.Gap(k) > 0 {
			take(k)
		}
		if !t.room || words[k-first] != 0 {
			take(k)
			if t.skip(k) {
				run = k + 1
				continue
			}
		}
		at, stop := s.Bounds(k)
		if !s.match(t.owner.cuts, k, data[at-base:stop-base]) {
			s.count.bad.Add(1)
			s.c.count.badFetched.Add(1)
			s.count.wasted.Add(stop - at)
			take(k)
			t.pass(k+1, nil)
			run = k + 1
			continue
		}
		if stop-s.Begin(run) >= most {
			take(k + 1)
		}
	}
	take(end)
}

// skip passes by chunk k unless a flight waits for it, or for what comes soon.
func (t *stream) skip(k int64) bool {
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wanted(k) {
		return false
	}
	if !t.room {
		for _, w := range s.waiting {
			if !w.behind && k < w.first && s.Begin(w.first)-s.Begin(k) <= streamNear {
				return false
			}
		}
		s.fetchedUnread(k, k+1)
	}
	t.advance(k + 1)
	return true
}

// take stores right chunks and hands them on, in this order for the reasons that
// landing.take gives.
func (t *stream) take(first, end int64, data []byte) {
	s := t.s
	s.fetchedUnread(first, end)
	file := s.openFile()
	rule := s.c.dir.RecordingRule()
	rule.Spare[s.digest] = true
	stored := t.room && s.keepBy(rule, file, first, end, data)
	if t.room && !stored {
		t.loseRoom()
	}
	base, _ := s.Bounds(first)
	for k := first; k < end && !stored; k++ {
		s.mu.Lock()
		wanted := s.wanted(k)
		s.mu.Unlock()
		at, stop := s.Bounds(k)
		if chunk := data[at-base : stop-base]; !wanted || !s.keep(file, k, k+1, chunk) {
			s.c.sched.recent.put(s, k, chunk)
		}
	}
	t.pass(end, data)
}

// loseRoom notes that disk or budget do not take all of the blob.
func (t *stream) loseRoom() {
	if t.s.c.dir.MayWrite() { // it is not the disk
		t.s.c.dir.WarnDisk(directory.NoRoomFor(t.s.Size))
	}
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.room = false
}

// pass hands the chunks from next to end to the flights that wait for them, or
// passes them by if there is no data.
func (t *stream) pass(end int64, data []byte) {
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	t.since = time.Now()
	base, _ := s.Bounds(t.next)
	for k := t.next; k < end && data != nil; k++ {
		at, stop := s.Bounds(k)
		for _, w := range s.waiting {
			if w.lacks(k) {
				copy(w.f.run(k, k+1), data[at-base:stop-base])
				w.f.land(k, k+1, fromSource)
			}
		}
	}
	t.advance(end)
}

// advance says that the stream has come to chunk next. The caller holds s.mu.
func (t *stream) advance(next int64) {
	t.next = next
	t.s.waiting = slices.DeleteFunc(t.s.waiting, func(w *streamWaiter) bool {
		if w.behind || w.end > next {
			return false
		}
		close(w.done)
		return true
	})
}

// goOn returns errStreamOver if nobody needs more. A stream that is not stored
// waits a little for another read first.
func (t *stream) goOn() error {
	if t.needed() {
		return nil
	}
	linger := time.NewTimer(streamLinger)
	defer linger.Stop()
	for t.lingers() {
		select {
		case <-t.wake:
		case <-linger.C:
			return errStreamOver
		case <-t.ctx.Done():
			return t.ctx.Err()
		}
		if t.needed() {
			return nil
		}
	}
	return errStreamOver
}

// needed reports whether more of the stream is to be read.
func (t *stream) needed() bool {
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.room && t.next <= t.last || t.next == s.Layout.Chunks() ||
		slices.ContainsFunc(s.waiting, func(w *streamWaiter) bool { return !w.behind })
}

// lingers reports whether the next flight may want what comes.
func (t *stream) lingers() bool {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	return !t.room && len(t.s.waiting) == 0
}

func (s *blobState) addFetched(n int64) {
	s.c.count.fetched.Add(n)
	s.count.fetched.Add(n)
}

func (s *blobState) countRequest() {
	s.c.count.requests.Add(1)
	s.count.requests.Add(1)
}
