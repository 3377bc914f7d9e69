package spool

import (
	"bytes"
	"errors"
)

// sealBlock is the length of the pieces of the file that are sealed, and read
// back, each for itself.
const sealBlock = 16 << 10

// errChanged: the file has not what was written to it.
var errChanged = errors.New("it has changed on disk, or cannot be read")

// seal notes what has been written at w.off, and returns the last of it: what is
// no whole block yet. Nobody reads it before the tail is that of the Spool.
func (w *writer) seal(p []byte) (tail []byte) {
	at := w.off - int64(len(w.s.tail)) // which only this goroutine changes
	w.buf = append(append(w.buf[:0], w.s.tail...), p...)
	whole := len(w.buf) / sealBlock * sealBlock
	w.s.sealed.Seal(at, w.buf[:whole])
	return bytes.Clone(w.buf[whole:])
}

// copyTail copies to p what the tail has of its range, which begins at off, and
// returns the rest of p. All of it must be there.
func (s *Spool) copyTail(p []byte, off int64) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tail) == 0 || off+int64(len(p)) <= s.tailAt {
		return p
	}
	from := max(off, s.tailAt)
	copy(p[from-off:], s.tail[from-s.tailAt:])
	return p[:from-off]
}

// giveUp gives up a file that is not what was written, so that it is written
// anew. One that is being written may have been cut for this by another.
func (s *Spool) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.try != nil && s.try.done && !s.closed {
		s.forget()
		_ = s.file.Truncate(0) // if it stays, so does what it takes
	}
}
