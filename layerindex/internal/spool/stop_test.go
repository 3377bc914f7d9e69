package spool

import (
	"bytes"
	"context"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A counter counts what is written to a file.
type counter struct {
	File
	written atomic.Int64
}

func (c *counter) WriteAt(p []byte, off int64) (int, error) {
	c.written.Add(int64(len(p)))
	return c.File.WriteAt(p, off)
}

// counted makes a spool whose file counts.
func counted(t *testing.T, dir string, size int64, produce Producer) (*Spool, *counter) {
	t.Helper()
	f, err := inDir(dir)()
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{File: f}
	s := New(func() (File, error) { return c, nil }, size, produce)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, c
}

// slowly produces data a byte each 100 ms, whether or not its context has ended.
func slowly(data []byte, runs *atomic.Int64) Producer {
	return func(ctx context.Context, w io.Writer) error {
		runs.Add(1)
		for i := range data {
			time.Sleep(100 * time.Millisecond)
			if _, err := w.Write(data[i : i+1]); err != nil {
				return err
			}
		}
		return nil
	}
}

// A producer that nobody reads from any more stops within a second, whether its
// last reader has what it wanted or has left. What it wrote stays, and is not
// written again.
func TestStopsForWantOfReaders(t *testing.T) {
	for name, read := range map[string]func(t *testing.T, s *Spool){
		"served": func(t *testing.T, s *Spool) {
			if n, err := s.ReadAt(t.Context(), make([]byte, 5), 0); n != 5 || err != nil {
				t.Errorf("ReadAt = %d, %v", n, err)
			}
		},
		"left": func(t *testing.T, s *Spool) {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			if n, err := s.ReadAt(ctx, make([]byte, 1), 99); n != 0 || err != context.DeadlineExceeded {
				t.Errorf("ReadAt = %d, %v", n, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				data := random(100)
				var runs atomic.Int64
				s, file := counted(t, dir, 100, slowly(data, &runs))
				read(t, s)
				time.Sleep(time.Second)
				if n := file.written.Load(); n < 5 || n > 15 {
					t.Errorf("%d bytes were written a second after the last reader, want about 10", n)
				}
				stopped := file.written.Load()
				time.Sleep(time.Minute)
				if n := file.written.Load(); n != stopped {
					t.Errorf("%d bytes were written, and a minute later %d", stopped, n)
				}
				p := make([]byte, 100)
				if n, err := s.ReadAt(t.Context(), p, 0); n != 100 || err != nil || !bytes.Equal(p, data) {
					t.Errorf("ReadAt of all = %d, %v", n, err)
				}
				if n := file.written.Load(); n > 101 || runs.Load() != 2 {
					t.Errorf("%d bytes were written in %d runs, want 100 in 2", n, runs.Load())
				}
			})
		})
	}
}

// Readers of what is there keep a producer going that is ahead of them.
func TestReadersBehindTheProducer(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int64
		s, file := counted(t, dir, 100, slowly(random(100), &runs))
		for range 40 {
			if n, err := s.ReadAt(t.Context(), make([]byte, 1), 0); n != 1 || err != nil {
				t.Fatalf("ReadAt = %d, %v", n, err)
			}
			time.Sleep(Linger * 3 / 4)
		}
		if n := file.written.Load(); n < 100 || runs.Load() != 1 {
			t.Errorf("%d bytes were written in %d runs, want all in one", n, runs.Load())
		}
	})
}

// A reader that comes while a producer is being stopped gets its bytes.
func TestReaderComesAtTheStop(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		data := random(100)
		var runs atomic.Int64
		s, _ := counted(t, dir, 100, func(ctx context.Context, w io.Writer) error {
			if err := slowly(data[:20], &runs)(ctx, w); err != nil {
				time.Sleep(time.Second) // on the way out
				return err
			}
			<-ctx.Done()
			time.Sleep(time.Second)
			return ctx.Err()
		})
		if n, err := s.ReadAt(t.Context(), make([]byte, 1), 0); n != 1 || err != nil {
			t.Fatalf("ReadAt = %d, %v", n, err)
		}
		time.Sleep(Linger + Linger/2)
		p := make([]byte, 18)
		if n, err := s.ReadAt(t.Context(), p, 0); n != 18 || err != nil || !bytes.Equal(p, data[:18]) {
			t.Errorf("ReadAt = %d, %v", n, err)
		}
		if runs.Load() != 2 {
			t.Errorf("%d runs, want 2", runs.Load())
		}
	})
}

// Close does not wait for a producer that looks at nothing but its writes.
func TestCloseEndsWrites(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int64
		s, _ := counted(t, dir, 100, slowly(random(100), &runs))
		go s.ReadAt(t.Context(), make([]byte, 1), 99)
		time.Sleep(250 * time.Millisecond)
		begun := time.Now()
		s.Close()
		if took := time.Since(begun); took > time.Second {
			t.Errorf("Close took %s", took)
		}
	})
}

// What a stopped producer has written is sealed together with what comes after
// it, wherever in a block it stopped.
func TestStoppedWithinABlock(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		data := random(5*sealBlock + 77)
		var runs atomic.Int64
		s, _ := counted(t, dir, int64(len(data)), func(ctx context.Context, w io.Writer) error {
			runs.Add(1)
			for piece := range slices.Chunk(data, 3000) {
				time.Sleep(100 * time.Millisecond)
				if _, err := w.Write(piece); err != nil {
					return err
				}
			}
			return nil
		})
		for end := 5000; end <= len(data); end += 20000 {
			p := make([]byte, end)
			if n, err := s.ReadAt(t.Context(), p, 0); n != end || err != nil || !bytes.Equal(p, data[:end]) {
				t.Errorf("ReadAt of %d bytes = %d, %v", end, n, err)
			}
			time.Sleep(time.Minute)
		}
		p := make([]byte, len(data))
		if n, err := s.ReadAt(t.Context(), p, 0); n != len(p) || err != nil || !bytes.Equal(p, data) {
			t.Errorf("ReadAt of all = %d, %v", n, err)
		}
		if runs.Load() < 3 {
			t.Errorf("it was produced %d times, and was to be stopped", runs.Load())
		}
	})
}
