package blobs

import (
	"context"
	"slices"
	"time"
)

// A streamWaiter is a flight that waits for chunks from a stream. It is guarded
// by blobState.mu.
type streamWaiter struct {
	f          *flight
	first, end int64
	since      time.Time // when it began to wait
	behind     bool      // the stream has been at first already
	done       chan struct{}
	err        error // when done is closed
}

// lacks reports whether the flight has to get chunk k.
func (w *streamWaiter) lacks(k int64) bool {
	return w.first <= k && k < w.end && w.f.got[k-w.f.first] == missing
}

// awaitStream waits until a stream has brought, or passed by, what the flight
// lacks of the chunks from first to end. It begins a stream if there is none
// and begin is set. It returns false if no stream brings the chunks.
func (s *blobState) awaitStream(ctx context.Context, file *blobFile, f *flight, first, end int64, begin bool) (bool, error) {
	for _, late := range []bool{false, true} { // what has just gone by is there
		s.load(file, f)
		for first < end && f.got[first-f.first] != missing {
			first++
		}
		if first == end {
			return true, nil
		}
		if w := s.waitStream(f, first, end, begin, late); w != nil {
			select {
			case <-w.done:
				return true, w.err
			case <-ctx.Done():
				s.mu.Lock()
				defer s.mu.Unlock()
				s.waiting = slices.DeleteFunc(s.waiting, func(x *streamWaiter) bool { return x == w })
				return true, ctx.Err()
			}
		}
	}
	return false, nil
}

// waitStream has a flight wait; it returns nil if that is of no use. late says
// that what has gone by is gone.
func (s *blobState) waitStream(f *flight, first, end int64, begin, late bool) *streamWaiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &streamWaiter{f: f, first: first, end: end, since: time.Now(), done: make(chan struct{})}
	switch t := s.stream; {
	case s.closed, t == nil && !begin:
		return nil
	case t == nil:
		s.waiting = append(s.waiting, w)
		s.startStream(f.owner)
	case first < t.next && (t.room || !late):
		return nil // if it is not there it is wrong, or others have removed it
	default:
		w.behind = first < t.next
		s.waiting = append(s.waiting, w)
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
	return w
}

// wanted reports whether a flight waits for chunk k. The caller holds s.mu.
func (s *blobState) wanted(k int64) bool {
	return slices.ContainsFunc(s.waiting, func(w *streamWaiter) bool { return w.lacks(k) })
}
