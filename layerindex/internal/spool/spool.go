// Package spool keeps data that can only be produced from its start in a
// temporary file, so that it is produced once for readers anywhere in it.
package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrFile: the file could not be made, written or read, while the data is
// sound. It wraps what the disk said.
var ErrFile = errors.New("temporary file")

func fileError(err error) error { return fmt.Errorf("%w: %w", ErrFile, err) }

// A Producer writes all of the data to w, in order. It ends soon after ctx
// does, and when a write fails. A slice that it wrote is not kept.
type Producer func(ctx context.Context, w io.Writer) error

// A Spool is size bytes of data that a producer writes to a file without a
// name while readers wait for their part of it. It is safe for concurrent
// use.
//
// The producer starts with the first read and runs to its end whether or not
// readers stay. When it fails, the reads that wait for bytes which are not
// there yet return its error, and the next read for such bytes starts it
// again, from the beginning. When it is the file that fails, what is in it is
// given up, so that it takes no room. The last byte is there when the producer has ended without error,
// so that a checksum which it finds wrong at the end does not go unnoticed.
type Spool struct {
	dir     string
	size    int64
	produce Producer

	mu     sync.Mutex
	file   *os.File
	have   int64         // bytes that can be read
	grown  chan struct{} // closed when have grows or try ends; nil if nobody waits
	try    *try          // the one that runs, or ran last
	closed bool
}

// A try is one run of the producer.
type try struct {
	cancel context.CancelFunc
	done   bool // guarded by Spool.mu
	err    error
	ended  chan struct{} // closed when no goroutine is left
}

// New returns a spool of exactly size bytes of what produce writes, in a file
// in the directory dir. Nothing happens before the first read.
func New(dir string, size int64, produce Producer) *Spool {
	return &Spool{dir: dir, size: size, produce: produce}
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
	n, err := file.ReadAt(want, off)
	switch {
	case n < len(want):
		// It may have been given up since.
		return 0, fileError(err)
	case n < len(p):
		return n, io.EOF
	}
	return n, nil
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
func (s *Spool) wait(ctx context.Context, end int64) (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var joined *try
	for s.have < end || s.closed {
		if s.closed {
			return nil, fmt.Errorf("spool: %w", fs.ErrClosed)
		}
		if joined != nil && joined.done {
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
		file, err := create(s.dir)
		if err != nil {
			return fileError(err)
		}
		s.file = file
	}
	if s.try != nil {
		<-s.try.ended // at once: it is done
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.have = 0
	s.try = &try{cancel: cancel, ended: make(chan struct{})}
	go s.run(ctx, s.try)
	return nil
}

func (s *Spool) run(ctx context.Context, t *try) {
	defer close(t.ended)
	defer t.cancel()
	w := &writer{s: s}
	err := s.produce(ctx, w)
	if w.err != nil {
		err = w.err
	}
	if err == nil && w.off < s.size {
		err = fmt.Errorf("got %d bytes of %d: %w", w.off, s.size, io.ErrUnexpectedEOF)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.done, t.err = true, err
	switch {
	case err == nil:
		s.have = s.size
	case errors.Is(err, ErrFile):
		s.have = 0
		_ = s.file.Truncate(0) // if it stays, so does what it takes
	}
	s.wake()
}

// A writer writes what a producer gives to the spool's file.
type writer struct {
	s   *Spool
	off int64
	err error
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	s := w.s
	if int64(len(p)) > s.size-w.off {
		w.err = fmt.Errorf("more data than the expected %d bytes", s.size)
		return 0, w.err
	}
	n, err := s.file.WriteAt(p, w.off)
	w.off += int64(n)
	if err != nil {
		w.err = fileError(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.have = max(s.have, min(w.off, s.size-1))
	s.wake()
	return n, w.err
}

// create opens a new file that has no name in dir.
func create(dir string) (*os.File, error) {
	file, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o600)
	if err == nil {
		return file, nil
	}
	// Not every file system can do that.
	if file, err = os.CreateTemp(dir, "spool-"); err != nil {
		return nil, err
	}
	if err := os.Remove(file.Name()); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}
