package spool

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/imgfs/imgfs/layerindex/internal/samples"
)

// inDir returns what makes files without a name in a directory.
func inDir(dir string) func() (File, error) {
	return func() (File, error) {
		f, err := samples.TempFile(dir)
		if err != nil {
			return nil, err
		}
		return f, nil
	}
}

func random(n int) []byte {
	r := rand.New(rand.NewPCG(1, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// pieces produces data in pieces of up to 10,000 bytes.
func pieces(data []byte) Producer {
	return func(ctx context.Context, w io.Writer) error {
		r := rand.New(rand.NewPCG(2, 2))
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 1+r.IntN(10_000))
			if _, err := w.Write(rest[:n]); err != nil {
				return err
			}
			rest = rest[n:]
		}
		return nil
	}
}

func TestReadAt(t *testing.T) {
	data := random(1000)
	s := New(inDir(t.TempDir()), 1000, pieces(data))
	defer s.Close()
	for _, tt := range []struct {
		off  int64
		n    int
		want int
		err  error
	}{
		{0, 1, 1, nil},
		{0, 1000, 1000, nil},
		{999, 1, 1, nil},
		{999, 2, 1, io.EOF},
		{0, 2000, 1000, io.EOF},
		{1000, 1, 0, io.EOF},
		{5000, 1, 0, io.EOF},
		{5, 0, 0, nil},
	} {
		p := make([]byte, tt.n)
		n, err := s.ReadAt(t.Context(), p, tt.off)
		if n != tt.want || err != tt.err || n > 0 && !bytes.Equal(p[:n], data[tt.off:][:n]) {
			t.Errorf("ReadAt(%d bytes at %d) = %d, %v; want %d, %v", tt.n, tt.off, n, err, tt.want, tt.err)
		}
	}
	if n, err := s.ReadAt(t.Context(), make([]byte, 1), -1); n != 0 || err == nil {
		t.Errorf("ReadAt(1 byte at -1) = %d, %v; want an error", n, err)
	}
}

func TestConcurrentReaders(t *testing.T) {
	data := random(1 << 20)
	var runs atomic.Int32
	s := New(inDir(t.TempDir()), int64(len(data)), func(ctx context.Context, w io.Writer) error {
		runs.Add(1)
		return pieces(data)(ctx, w)
	})
	defer s.Close()
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(3, uint64(i)))
			for range 50 {
				off := r.IntN(len(data))
				p := make([]byte, 1+r.IntN(min(50_000, len(data)-off)))
				n, err := s.ReadAt(t.Context(), p, int64(off))
				if n != len(p) || err != nil || !bytes.Equal(p, data[off:off+n]) {
					t.Errorf("ReadAt(%d bytes at %d) = %d, %v", len(p), off, n, err)
				}
			}
		})
	}
	wg.Wait()
	if n := runs.Load(); n != 1 {
		t.Errorf("the producer ran %d times, want 1", n)
	}
}

// A result is what a read in a goroutine of its own has come to.
type result struct {
	done atomic.Bool
	n    int
	err  error
}

func read(ctx context.Context, s *Spool, off int64, n int) *result {
	r := new(result)
	go func() {
		r.n, r.err = s.ReadAt(ctx, make([]byte, n), off)
		r.done.Store(true)
	}()
	return r
}

// stepper returns a producer that writes what it is sent, and ends with the
// error that it is sent or when the channel is closed.
func stepper() (chan any, Producer) {
	steps := make(chan any)
	return steps, func(ctx context.Context, w io.Writer) error {
		for {
			select {
			case v, ok := <-steps:
				if err, bad := v.(error); bad || !ok {
					return err
				}
				if _, err := w.Write(make([]byte, v.(int))); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

func TestWaits(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		steps, produce := stepper()
		s := New(inDir(dir), 100, produce)
		defer s.Close()
		first, middle, last := read(t.Context(), s, 0, 10), read(t.Context(), s, 5, 40), read(t.Context(), s, 99, 1)
		check := func(after string, want ...bool) {
			t.Helper()
			synctest.Wait()
			for i, r := range []*result{first, middle, last} {
				if got := r.done.Load(); got != want[i] || got && (r.n == 0 || r.err != nil) {
					t.Errorf("after %s: reader %d is done: %v (%d, %v), want %v", after, i, got, r.n, r.err, want[i])
				}
			}
		}
		check("nothing", false, false, false)
		steps <- 9
		check("9 bytes", false, false, false)
		steps <- 1
		check("10 bytes", true, false, false)
		steps <- 40
		check("50 bytes", true, true, false)
		steps <- 50
		check("100 bytes", true, true, false)
		close(steps)
		check("the end", true, true, true)
	})
}

func TestCancelledReader(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		steps, produce := stepper()
		s := New(inDir(dir), 10, produce)
		defer s.Close()
		ctx, cancel := context.WithCancel(t.Context())
		leaves, stays := read(ctx, s, 0, 5), read(t.Context(), s, 0, 5)
		synctest.Wait()
		cancel()
		synctest.Wait()
		if !leaves.done.Load() || leaves.err != context.Canceled {
			t.Errorf("cancelled reader is done: %v, error %v", leaves.done.Load(), leaves.err)
		}
		steps <- 5 // the producer goes on
		synctest.Wait()
		if !stays.done.Load() || stays.n != 5 || stays.err != nil {
			t.Errorf("other reader is done: %v, %d, %v", stays.done.Load(), stays.n, stays.err)
		}
		if n, err := s.ReadAt(ctx, make([]byte, 10), 0); n != 0 || err != context.Canceled {
			t.Errorf("read with an ended context = %d, %v", n, err)
		}
	})
}

func TestFailure(t *testing.T) {
	broken := errors.New("broken")
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		steps, produce := stepper()
		s := New(inDir(dir), 10, produce)
		defer s.Close()
		a, b := read(t.Context(), s, 0, 10), read(t.Context(), s, 5, 1)
		steps <- 5
		synctest.Wait()
		steps <- broken
		synctest.Wait()
		for _, r := range []*result{a, b} {
			if !r.done.Load() || r.n != 0 || r.err != broken {
				t.Errorf("reader of what is not there is done: %v, %d, %v; want %v", r.done.Load(), r.n, r.err, broken)
			}
		}
		if n, err := s.ReadAt(t.Context(), make([]byte, 5), 0); n != 5 || err != nil {
			t.Errorf("read of what is there = %d, %v", n, err)
		}
		c := read(t.Context(), s, 0, 10) // a new try
		steps <- 10
		close(steps)
		synctest.Wait()
		if !c.done.Load() || c.n != 10 || c.err != nil {
			t.Errorf("second try is done: %v, %d, %v", c.done.Load(), c.n, c.err)
		}
	})
}

// Nothing of a failed try is left in what a later one gives.
func TestTryAgainWritesAnew(t *testing.T) {
	data := random(100)
	tries := 0
	s := New(inDir(t.TempDir()), 100, func(ctx context.Context, w io.Writer) error {
		if tries++; tries == 1 {
			w.Write(make([]byte, 90))
			return errors.New("those were wrong")
		}
		return pieces(data)(ctx, w)
	})
	defer s.Close()
	p := make([]byte, 100)
	if n, err := s.ReadAt(t.Context(), p, 0); n != 0 || err == nil {
		t.Errorf("first try = %d, %v; want an error", n, err)
	}
	if n, err := s.ReadAt(t.Context(), p, 0); n != 100 || err != nil || !bytes.Equal(p, data) {
		t.Errorf("second try = %d, %v, right bytes: %v", n, err, bytes.Equal(p, data))
	}
}

func TestWrongProducers(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name string
		size int
		err  error
		want error // nil: any
	}{
		{"short", 99, nil, io.ErrUnexpectedEOF},
		{"empty", 0, nil, io.ErrUnexpectedEOF},
		{"long", 101, nil, nil},
		{"complete, but fails", 100, broken, broken},
		{"fails", 50, broken, broken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := New(inDir(t.TempDir()), 100, func(ctx context.Context, w io.Writer) error {
				w.Write(make([]byte, tt.size/2))
				w.Write(make([]byte, tt.size-tt.size/2)) // a producer that ignores errors
				return tt.err
			})
			defer s.Close()
			for range 2 {
				n, err := s.ReadAt(t.Context(), make([]byte, 1), 99)
				if n != 0 || err == nil || tt.want != nil && !errors.Is(err, tt.want) {
					t.Errorf("read of the last byte = %d, %v; want %v", n, err, tt.want)
				}
			}
		})
	}
}

func TestClose(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		steps, produce := stepper()
		var ended atomic.Bool
		s := New(inDir(dir), 10, func(ctx context.Context, w io.Writer) error {
			defer ended.Store(true)
			return produce(ctx, w)
		})
		r := read(t.Context(), s, 0, 10)
		steps <- 5
		synctest.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if !ended.Load() {
			t.Error("Close returned before the producer")
		}
		synctest.Wait()
		if !r.done.Load() || !errors.Is(r.err, fs.ErrClosed) {
			t.Errorf("waiting reader is done: %v, error %v", r.done.Load(), r.err)
		}
		for _, n := range []int{1, 10} {
			if n, err := s.ReadAt(t.Context(), make([]byte, n), 0); n != 0 || !errors.Is(err, fs.ErrClosed) {
				t.Errorf("read after Close = %d, %v", n, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
	})
}

func TestUnused(t *testing.T) {
	s := New(inDir(filepath.Join(t.TempDir(), "absent")), 10, func(context.Context, io.Writer) error {
		t.Error("the producer ran")
		return nil
	})
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if n, err := s.ReadAt(t.Context(), make([]byte, 1), 0); n != 0 || !errors.Is(err, fs.ErrClosed) {
		t.Errorf("read after Close = %d, %v", n, err)
	}
}

func TestDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	data := random(10)
	s := New(inDir(dir), 10, pieces(data))
	defer s.Close()
	p := make([]byte, 10)
	if n, err := s.ReadAt(t.Context(), p, 0); n != 0 || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a directory = %d, %v", n, err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if n, err := s.ReadAt(t.Context(), p, 0); n != 10 || err != nil || !bytes.Equal(p, data) {
		t.Errorf("with a directory = %d, %v", n, err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Errorf("the file has a name: %v, %v", names, err)
	}
}

type key struct{}

func TestProducerContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
	s := New(inDir(t.TempDir()), 2, func(ctx context.Context, w io.Writer) error {
		cancel()
		if ctx.Value(key{}) != "value" || ctx.Err() != nil {
			t.Errorf("the producer's context has value %v, error %v", ctx.Value(key{}), ctx.Err())
		}
		_, err := w.Write([]byte("ab"))
		return err
	})
	defer s.Close()
	s.ReadAt(ctx, make([]byte, 1), 0)
	if n, err := s.ReadAt(t.Context(), make([]byte, 2), 0); n != 2 || err != nil {
		t.Errorf("ReadAt = %d, %v", n, err)
	}
}
