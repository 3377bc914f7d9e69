package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
)

// What has changed in the file is not read, and the file is written anew.
func TestFileChanges(t *testing.T) {
	for _, size := range []int{100, sealBlock, 5*sealBlock + 77} {
		data := random(size)
		for name, damage := range map[string]func(s *Spool) error{
			"a bit": func(s *Spool) error {
				_, err := s.file.WriteAt([]byte{data[size/2] ^ 1}, int64(size/2))
				return err
			},
			"cut":  func(s *Spool) error { return s.file.Truncate(int64(size) / 3) },
			"last": func(s *Spool) error { return s.file.Truncate(int64(size) - 1) },
		} {
			t.Run(fmt.Sprint(name, " of ", size), func(t *testing.T) {
				var runs atomic.Int32
				s := New(inDir(t.TempDir()), int64(size), func(ctx context.Context, w io.Writer) error {
					runs.Add(1)
					return pieces(data)(ctx, w)
				})
				defer s.Close()
				p := make([]byte, size)
				if _, err := s.ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, data) {
					t.Fatalf("at first: %v", err)
				}
				if err := damage(s); err != nil {
					t.Fatal(err)
				}
				if _, err := s.ReadAt(t.Context(), p, 0); !errors.Is(err, ErrFile) {
					t.Errorf("of a file that has changed: %v, want ErrFile", err)
				}
				clear(p)
				if _, err := s.ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, data) {
					t.Errorf("afterwards: %v", err)
				}
				if got := runs.Load(); got != 2 {
					t.Errorf("it was produced %d times, want 2", got)
				}
			})
		}
	}
}

// Bytes that fill no block are there as soon as they are written, and right, all
// the time while more come.
func TestReadAsItGrows(t *testing.T) {
	data := random(3*sealBlock + 1000)
	step := make(chan int)
	s := New(inDir(t.TempDir()), int64(len(data)), func(ctx context.Context, w io.Writer) error {
		at := 0
		for n := range step {
			if _, err := w.Write(data[at : at+n]); err != nil {
				return err
			}
			at += n
		}
		return nil
	})
	defer s.Close()
	have := 0
	for _, n := range []int{1, 100, sealBlock - 101, 1, sealBlock + 5000, 3, sealBlock - 5004, 998} {
		got := make(chan error, 1)
		have += n
		p := make([]byte, have-have/2)
		go func() {
			_, err := s.ReadAt(t.Context(), p, int64(have/2))
			got <- err
		}()
		step <- n
		if err := <-got; err != nil || !bytes.Equal(p, data[have/2:have]) {
			t.Fatalf("%d bytes are there, the second half of them: %v", have, err)
		}
	}
	go func() {
		step <- len(data) - have
		close(step)
	}()
	p := make([]byte, len(data))
	if _, err := s.ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, data) {
		t.Errorf("all of it: %v", err)
	}
}
