package network

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestLineShared: however many send at the same time, together they take as
// long as their bytes.
func TestLineShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{}
		l.set(0, 1e6)
		begun := time.Now()
		var ends [4]time.Duration
		var running sync.WaitGroup
		for i := range ends {
			running.Go(func() {
				for range 100 {
					if err := l.pass(t.Context(), 10_000); err != nil {
						t.Error(err)
					}
				}
				ends[i] = time.Since(begun)
			})
		}
		running.Wait()
		if got, want := time.Since(begun), 4*time.Second-maxCredit; got != want {
			t.Errorf("4 MB at 1 MB/s took %v, want %v", got, want)
		}
		for i, end := range ends {
			if end < 3900*time.Millisecond {
				t.Errorf("sender %d was done after %v: they did not take turns", i, end)
			}
		}
	})
}

// TestLineCredit: the excess of a sleep is made up for, and no more.
func TestLineCredit(t *testing.T) {
	l := &line{}
	l.set(0, 1e6)
	now := time.Now()
	for _, c := range []struct {
		after time.Duration // since the first
		want  time.Duration
	}{
		{0, 10*time.Millisecond - maxCredit},
		{10*time.Millisecond - maxCredit, 10 * time.Millisecond},
		{20*time.Millisecond - maxCredit/2, 10*time.Millisecond - 3*maxCredit/2 + maxCredit}, // woken late by half of the credit
		{time.Second, 10*time.Millisecond - maxCredit},                                       // free for long
	} {
		if got := l.reserve(10_000, now.Add(c.after)); got != c.want {
			t.Errorf("10 kB at %v: %v, want %v", c.after, got, c.want)
		}
	}
	l.set(0, 0)
	if got := l.reserve(1<<40, now); got != 0 {
		t.Errorf("without a bound: %v, want 0", got)
	}
}

func TestLineDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{}
		l.set(20*time.Millisecond, 0)
		begun := time.Now()
		var running sync.WaitGroup
		for range 3 {
			running.Go(func() { _ = l.roundTrip(t.Context()) })
		}
		running.Wait()
		if got, want := time.Since(begun), 20*time.Millisecond; got != want {
			t.Errorf("three round trips at the same time took %v, want %v", got, want)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.roundTrip(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("with an ended context: %v", err)
		}
	})
}
