// Package spool keeps data that can only be produced from its start in a
// temporary file, so that it is produced once for readers anywhere in it.
package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/imgfs/imgfs/remote/seal"
)

// ErrFile says that the file could not be made, written or read, while the data is
// sound. It wraps the error of the file.
var ErrFile = errors.New("temporary file")

func fileError(err error) error { return fmt.Errorf("%w: %w", ErrFile, err) }

// A Producer writes all of the data to w, in order. It must end soon after ctx does,
// and when a write fails. w keeps no slice.
type Producer func(ctx context.Context, w io.Writer) error

// A File is a file without a name: closing it removes it.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
}

// Linger is how long a producer goes on after the last read, so that readers that
// come one after the other find it at work.
const Linger = 500 * time.Millisecond

// A Spool is size bytes of data that a producer writes to a file without a
// name while readers wait for their part of it. It is safe for concurrent
// use.
//
// The producer starts with the first read and runs to its end as long as there
// are reads. When there was none for the time of Linger it is stopped, and what
// it wrote stays; the next read for other bytes starts it again, and what is
// there is not written again. When it fails, the reads that wait for bytes which
// are not there yet return its error, and the next read for such bytes starts it
// again, from the beginning. When it is the file that fails, what is in it is
// given up, so that it takes no room. The last byte is there when the producer
// has ended without error, so that a checksum which it finds wrong at the end
// does not go unnoticed.
type Spool struct {
	create  func() (File, error)
	size    int64
	produce Producer

	mu      sync.Mutex
	file    File
	sealed  *seal.Table   // what is in file, but for tail
	have    int64         // bytes that can be read
	grown   chan struct{} // closed when have grows or try ends; nil if nobody waits
	try     *try          // the one that runs, or ran last
	tail    []byte        // of a block that is not complete, from tailAt
	tailAt  int64
	waiting int       // reads that wait
	used    time.Time // when the last read began or ended
	closed  bool
}

// A try is one run of the producer.
type try struct {
	cancel context.CancelFunc
	ended  chan struct{} // closed when no goroutine is left

	// Guarded by Spool.mu:
	done    bool
	stopped bool // for want of readers
	err     error
	watch   *time.Timer // looks whether there are readers
}

// New returns a spool of exactly size bytes of what produce writes, in a file
// that create makes. Nothing happens before the first read.
func New(create func() (File, error), size int64, produce Producer) *Spool {
	return &Spool{create: create, size: size, produce: produce}
}

// ReadAt is like io.ReaderAt's, but waits until the bytes are there. It
// returns ctx.Err() when ctx ends first, the producer's error when it fails
// first, one that wraps ErrFile when the file does, and one that wraps
// fs.ErrClosed after Close. The producer gets a context with the values of the
// ctx that started it.
func (s *Spool) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("spool: negative offset %d", off)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if off >= s.size {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), s.size-off)]
	file, err := s.wait(ctx, off+int64(len(want)))
	if err != nil {
		return 0, err
	}
	if !s.sealed.Read(file, s.copyTail(want, off), off) {
		// It may have been given up since, too.
		s.giveUp()
		return 0, fileError(errChanged)
	}
	if len(want) < len(p) {
		return len(want), io.EOF
	}
	return len(want), nil
}

// Close stops the producer, waits for it, and gives the space back. Reads
// that wait return an error. Closing again does nothing.
func (s *Spool) Close() error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	t, file := s.try, s.file
	s.wake()
	s.mu.Unlock()
	if t != nil {
		t.cancel()
		<-t.ended
	}
	if !first || file == nil {
		return nil
	}
	return file.Close()
}

// wait returns the file when it has the bytes before end.
func (s *Spool) wait(ctx context.Context, end int64) (File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting++
	defer func() {
		s.waiting--
		s.used = time.Now()
	}()
	var joined *try
	for s.have < end || s.closed {
		if s.closed {
			return nil, fmt.Errorf("spool: %w", fs.ErrClosed)
		}
		if joined != nil && joined.done && !joined.stopped {
			return nil, joined.err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if s.try == nil || s.try.done {
			if err := s.start(ctx); err != nil {
				return nil, err
			}
		}
		joined = s.try
		s.sleep(ctx)
	}
	return s.file, nil
}

// sleep waits for a wake or the end of ctx, with s.mu released.
func (s *Spool) sleep(ctx context.Context) {
	if s.grown == nil {
		s.grown = make(chan struct{})
	}
	grown := s.grown
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-grown:
	case <-ctx.Done():
	}
}

// wake wakes all that sleep. The caller holds s.mu.
func (s *Spool) wake() {
	if s.grown != nil {
		close(s.grown)
		s.grown = nil
	}
}

// start starts the producer from the beginning. The caller holds s.mu.
func (s *Spool) start(ctx context.Context) error {
	if s.file == nil {
		file, err := s.create()
		if err != nil {
			return fileError(err)
		}
		s.file, s.sealed = file, seal.NewTable(seal.NewKey(), s.size, sealBlock)
	}
	if s.try != nil {
		<-s.try.ended // at once: it is done
		if !s.try.stopped {
			s.forget()
		}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t := &try{cancel: cancel, ended: make(chan struct{})}
	t.watch = time.AfterFunc(Linger, func() { s.look(t) })
	s.try = t
	go s.run(ctx, t)
	return nil
}

// look stops a try if nobody has read for long enough, or looks again later.
func (s *Spool) look(t *try) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.done {
		return
	}
	left := Linger
	if s.waiting == 0 {
		left -= time.Since(s.used)
	}
	if left > 0 {
		t.watch.Reset(left)
		return
	}
	t.stopped = true
	t.cancel()
}

func (s *Spool) run(ctx context.Context, t *try) {
	defer close(t.ended)
	defer t.cancel()
	w := &writer{s: s, ctx: ctx, skip: s.kept()}
	err := s.produce(ctx, w)
	if w.err != nil {
		err = w.err
	}
	if err == nil && w.off < s.size {
		err = fmt.Errorf("got %d bytes of %d: %w", w.off, s.size, io.ErrUnexpectedEOF)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.watch.Stop()
	t.done, t.err = true, err
	// What failed by itself has failed, although it was stopped then.
	t.stopped = t.stopped && ctx.Err() != nil && errors.Is(err, context.Canceled)
	switch {
	case err == nil:
		s.sealed.Seal(s.tailAt, s.tail)
		s.have, s.tail = s.size, nil
	case errors.Is(err, ErrFile):
		s.forget()
		_ = s.file.Truncate(0) // if it stays, so does what it takes
	}
	s.wake()
}

// forget says that nothing of the file can be read. The caller holds s.mu.
func (s *Spool) forget() { s.have, s.tail, s.tailAt = 0, nil, 0 }

// kept returns how many bytes a stopped try has left in the file. The last of
// all is not to be read yet, but sealed like the others.
func (s *Spool) kept() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tailAt + int64(len(s.tail))
}

// A writer writes what a producer gives to the spool's file.
type writer struct {
	s    *Spool
	ctx  context.Context // of the try
	skip int64           // bytes that are in the file
	off  int64
	err  error
	buf  []byte // what seal puts together
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	if w.err == nil {
		w.err = w.ctx.Err()
	}
	if w.err != nil {
		return 0, w.err
	}
	s := w.s
	if int64(len(p)) > s.size-w.off {
		w.err = fmt.Errorf("more data than the expected %d bytes", s.size)
		return 0, w.err
	}
	n := int(min(int64(len(p)), max(w.skip-w.off, 0)))
	w.off += int64(n)
	k, err := s.file.WriteAt(p[n:], w.off)
	tail := w.seal(p[n : n+k])
	n += k
	w.off += int64(k)
	if err != nil {
		w.err = fileError(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.have = max(s.have, min(w.off, s.size-1))
	if k > 0 {
		s.tail, s.tailAt = tail, w.off-int64(len(tail))
	}
	s.wake()
	return n, w.err
}
