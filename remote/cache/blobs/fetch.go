package blobs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/blobfile"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

// maxWrite is how many bytes are given to the disk at once, which takes all of
// them or none; one chunk is always allowed.
const maxWrite = 1 << 20

// writeSize is maxWrite for this Cache: of a small budget a small part.
func (c *Cache) writeSize() int64 {
	if limit := c.dir.Budget(); limit > 0 {
		return min(limit/64, maxWrite)
	}
	return maxWrite
}

// load takes from memory and disk what is there and sound. A chunk that is
// not what it should be is dropped.
func (s *blobState) load(file *blobFile, f *flight) {
	for k := f.first; k < f.end; k++ {
		if f.got[k-f.first] == missing && s.c.sched.recent.copy(s, k, f.run(k, k+1)) {
			f.land(k, k+1, fromMemory)
		}
	}
	if file == nil {
		return
	}
	for i, word := range file.present(f.first, f.end) {
		if word == 0 || f.got[i] != missing {
			continue
		}
		k := f.first + int64(i)
		data := f.run(k, k+1)
		if !s.loadChunk(f.owner.cuts, file, k, data) {
			if file.current() {
				s.dropWrong(file, k)
			}
			continue
		}
		f.land(k, k+1, fromDisk)
	}
}

// loadChunk fills data with chunk k of the file, and reports whether it is right. What
// has matched once need not match again.
func (s *blobState) loadChunk(cuts Cuts, file *blobFile, k int64, data []byte) bool {
	if s.seals.readAll(s.Layout, file.f, k, data) {
		file.noteSound(k)
		return true
	}
	at, _ := s.Bounds(k)
	if _, err := file.f.ReadAt(data, at); err != nil || !s.match(cuts, k, data) {
		return false
	}
	file.setSound(k, data)
	return true
}

// dropWrong notes that chunk k is not there: what is on disk is not it.
func (s *blobState) dropWrong(file *blobFile, k int64) {
	if !file.hollow(k) {
		s.count.bad.Add(1)
		s.c.dir.CountBad()
	}
	file.clearSound(k)
	_ = file.setWord(k, 0) // else it is found wrong again
}

// lacks calls do with each run of chunks from first to end that f has not got.
func (f *flight) lacks(first, end int64, do func(first, end int64) error) error {
	for k := first; k < end; {
		stop := k
		for stop < end && f.got[stop-f.first] == missing {
			stop++
		}
		if stop > k {
			if err := do(k, stop); err != nil {
				return err
			}
		}
		k = max(stop, k+1)
	}
	return nil
}

// fetchMissing asks the source for what f lacks. A wrong chunk does not keep
// it from bringing others; a source that cannot be asked does.
func (s *blobState) fetchMissing(ctx context.Context, file *blobFile, f *flight) error {
	var wrong error
	err := f.lacks(f.first, f.end, func(first, end int64) error {
		if err := s.request(ctx, file, f, first, end, false); err != nil {
			return err
		}
		// What was wrong is asked for once more, elsewhere if possible.
		return f.lacks(first, end, func(first, end int64) error {
			if err := s.request(ctx, file, f, first, end, true); err != nil {
				return err
			}
			return f.lacks(first, end, func(k, _ int64) error {
				if wrong == nil {
					at, stop := s.Bounds(k)
					wrong = fmt.Errorf("blob %s: chunk %d (bytes %d to %d): %w", s.digest, k, at, stop-1, remote.ErrDigest)
				}
				return nil
			})
		})
	})
	if err != nil {
		return err
	}
	return wrong
}

// request gets the chunks from first to end from the source and keeps those
// that are right. An early end of the content is no error here: it leaves
// chunks missing.
func (s *blobState) request(ctx context.Context, file *blobFile, f *flight, first, end int64, elsewhere bool) error {
	l := landing{s: s, file: file, f: f, next: first, end: end}
	l.at, _ = s.Bounds(first)
	src, ok := f.owner.src.(remote.WholeBlob)
	if elsewhere || !ok {
		return l.bring(func(buf []byte) (int, error) { return l.read(ctx, buf, elsewhere) })
	}
	// A stream may also have ended since the flight looked at what is there.
	if done, err := s.awaitStream(ctx, file, f, first, end, false); done {
		return s.sourceError(err)
	}
	err := l.bring(func(buf []byte) (int, error) { return l.readRange(ctx, src, buf) })
	if !errors.Is(err, remote.ErrWhole) {
		return err
	}
	if done, err := s.awaitStream(ctx, file, f, first, end, true); done {
		return s.sourceError(err)
	}
	return f.lacks(first, end, func(first, end int64) error {
		l := landing{s: s, file: file, f: f, next: first, end: end}
		l.at, _ = s.Bounds(first)
		return l.bring(func(buf []byte) (int, error) { return src.ReadAt(ctx, buf, l.at) })
	})
}

// sourceError says of which blob an error is, if it is one.
func (s *blobState) sourceError(err error) error {
	if err == nil || isEnd(err) {
		return nil
	}
	return fmt.Errorf("blob %s: %w", s.digest, err)
}

// A landing takes the chunks of one request as they come.
type landing struct {
	s    *blobState
	file *blobFile
	f    *flight
	at   int64 // where the request begins in the blob
	next int64 // the first chunk not looked at
	end  int64
	// came is how many bytes have come, and right how many of right chunks.
	came, right int64
}

// count counts what has come, n bytes if the source does not know.
func (l *landing) count(n int64) {
	n = remote.Received(l.f.owner.src, n)
	l.came += n
	l.s.addFetched(n)
}

// bring makes one request by read.
func (l *landing) bring(read func(buf []byte) (int, error)) error {
	buf := l.f.run(l.next, l.end)
	l.s.countRequest()
	n, err := read(buf)
	n = max(0, min(n, len(buf)))
	l.count(int64(n))
	l.upTo(int64(n))
	l.s.count.wasted.Add(l.came - l.right) // what other requests have brought by now evens out with theirs
	if n == len(buf) {
		return nil
	}
	return l.s.sourceError(err)
}

// read asks the source, in the way that suits.
func (l *landing) read(ctx context.Context, buf []byte, elsewhere bool) (int, error) {
	src := l.f.owner.src
	if e, ok := src.(remote.ElsewhereBlob); ok && elsewhere {
		return e.ReadElsewhere(ctx, buf, l.at)
	}
	if p, ok := src.(remote.ProgressBlob); ok && !elsewhere && l.end-l.next > 1 {
		return l.follow(buf, func(arrived func(n int)) (int, error) { return p.ReadAtProgress(ctx, buf, l.at, arrived) })
	}
	return src.ReadAt(ctx, buf, l.at)
}

// readRange asks a source that may not serve ranges.
func (l *landing) readRange(ctx context.Context, src remote.WholeBlob, buf []byte) (int, error) {
	if l.end-l.next > 1 {
		return l.follow(buf, func(arrived func(n int)) (int, error) { return src.ReadRange(ctx, buf, l.at, arrived) })
	}
	return src.ReadRange(ctx, buf, l.at, nil)
}

// follow reads from a source that says how far it is, so that who waits for
// the first chunk does not wait for the last. Checking and storing go on
// beside the transfer.
func (l *landing) follow(buf []byte, read func(arrived func(n int)) (int, error)) (int, error) {
	var mark atomic.Int64
	wake, stop, stopped := make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-wake:
				l.upTo(min(mark.Load(), int64(len(buf))))
			case <-stop:
				return
			}
		}
	}()
	defer func() {
		close(stop)
		<-stopped
	}()
	m := measure{line: &l.s.c.sched.line, began: time.Now()}
	defer m.end()
	return read(func(n int) {
		m.arrived(int64(n))
		l.count(0) // before anybody has it
		mark.Store(int64(n))
		select {
		case wake <- struct{}{}:
		default:
		}
	})
}

// upTo looks at the chunks that are whole when n bytes of the request have
// come: the right ones land.
func (l *landing) upTo(n int64) {
	run := l.next // of right chunks without gaps, up to l.next
	most := l.s.c.writeSize()
	for ; l.next < l.end; l.next++ {
		off, stop := l.s.Bounds(l.next)
		if stop-l.at > n {
			break
		}
		if l.s.Gap(l.next) > 0 {
			l.take(run, l.next)
			run = l.next
		}
		if !l.s.match(l.f.owner.cuts, l.next, l.f.data[off-l.f.off:stop-l.f.off]) {
			l.s.count.bad.Add(1)
			l.s.c.count.badFetched.Add(1)
			l.take(run, l.next)
			run = l.next + 1
			continue
		}
		if stop-l.s.Begin(run) >= most {
			l.take(run, l.next+1)
			run = l.next + 1
		}
	}
	l.take(run, l.next)
}

// take stores right chunks and hands them on. They are stored first, so that
// a disk that is slower than the source slows readers down and does not make
// them pile up, and so that what was read is there for the next process. (Cuts that
// decode what they match may have given it to readers a moment before that.)
func (l *landing) take(first, end int64) {
	if first >= end {
		return
	}
	if l.f.why == expected {
		l.s.noteExpected(first, end)
	}
	l.s.fetchedUnread(first, end)
	at, _ := l.s.Bounds(first)
	_, stop := l.s.Bounds(end - 1)
	l.right += stop - at
	switch {
	case l.s.local && l.s.seals != nil:
		for k := first; k < end; k++ {
			l.s.seals.put(k, l.f.run(k, k+1))
		}
	case !l.s.keep(l.file, first, end, l.f.run(first, end)):
		k := first
		if l.s.local && stop-at >= maxWrite {
			k = end - 1 // of a long run the next one may want the last chunk
		}
		for ; k < end; k++ {
			l.s.c.sched.recent.put(l.s, k, l.f.run(k, k+1))
		}
	}
	l.f.land(first, end, fromSource)
}

// keep stores chunks that have been checked. It reports whether disk and
// budget took them.
func (s *blobState) keep(file *blobFile, first, end int64, data []byte) bool {
	return s.keepBy(directory.Rule{Often: true}, file, first, end, data)
}

// keepBy is keep with a rule for what may be removed.
func (s *blobState) keepBy(r directory.Rule, file *blobFile, first, end int64, data []byte) bool {
	return file != nil && s.c.dir.Put(int64(len(data)), r, func() error { return file.writeRun(first, end, data) })
}

// writeRun stores the chunks from first to end, which must have been checked, and have no
// gaps between them.
// The data goes first: who is killed in between leaves chunks that are not
// there.
func (b *blobFile) writeRun(first, end int64, data []byte) error {
	if b.seals != nil {
		b.seal(first, end, data) // whoever sees the word need not match it again
	}
	now := blobfile.Stamp()
	at, _ := b.Bounds(first)
	_, err := b.f.WriteAt(data, at)
	if err == nil {
		words := binary.LittleEndian.AppendUint32(nil, now)
		_, err = b.f.WriteAt(bytes.Repeat(words, int(end-first)), b.Word(first))
	}
	if err != nil {
		b.forget(first, end)
		return err
	}
	if b.seals == nil {
		if b.unsure {
			return nil
		}
		b.seal(first, end, data)
	}
	for k := first; k < end; k++ {
		b.sound[k].Store(now)
	}
	return nil
}

// forget gives back what the chunks from first to end take that are not
// there: data without a word would take room that nobody finds.
func (b *blobFile) forget(first, end int64) {
	for i, word := range b.present(first, end) {
		if word == 0 {
			_ = b.PunchOwn(b.f, first+int64(i))
		}
	}
}

// permanent reports whether asking again is not likely to help.
func permanent(err error) bool {
	return errors.Is(err, remote.ErrNotFound) || errors.Is(err, remote.ErrUnauthorized) || errors.Is(err, remote.ErrDigest)
}
