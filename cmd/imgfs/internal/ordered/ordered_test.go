package ordered_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/ordered"
)

func numbers(n int) func(func(int) bool) {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}

// Later items are done first, and each has more results than wait.
func TestEachKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const items, results = 50, 100
		var got, want []int
		err := ordered.Each(t.Context(), 4, numbers(items), func(_ context.Context, i int, yield func(int) bool) {
			time.Sleep(time.Duration(items-i) * time.Second)
			for k := range results {
				yield(i*results + k)
			}
		}, func(n int) error {
			got = append(got, n)
			return nil
		})
		for i := range items * results {
			want = append(want, i)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("got error %v and %d results, in order: %v", err, len(got), slices.IsSorted(got))
		}
	})
}

func TestEachEnds(t *testing.T) {
	full := errors.New("full")
	for name, c := range map[string]struct {
		want error
		end  func(cancel func()) error
	}{
		"emit fails": {full, func(func()) error { return full }},
		"ctx ends":   {context.Canceled, func(cancel func()) error { cancel(); return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err := ordered.Each(ctx, 3, numbers(1<<40), func(ctx context.Context, i int, yield func(int) bool) {
				for yield(i) {
				}
			}, func(int) error { return c.end(cancel) })
			if err != c.want {
				t.Errorf("got error %v, want %v", err, c.want)
			}
			if after := runtime.NumGoroutine(); after > before {
				t.Errorf("%d goroutines are left", after-before)
			}
		})
	}
}
