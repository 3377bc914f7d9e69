// Package ordered does work on many items side by side and takes the results in the order
// of the items.
package ordered

import (
	"context"
	"iter"
	"sync"
)

// A job is an item, and its results.
type job[T, R any] struct {
	item    T
	results chan R // closed behind the last one
}

// ahead is how many items for each worker are begun before those in front of them are
// done, and resultsAhead how many results of an item wait to be taken.
const (
	ahead        = 4
	resultsAhead = 16
)

// Each has workers call do with every item, several at a time, and calls emit, one call at
// a time, with the results that do yields: those of the first item, then those of the
// second one. yield waits if emit is far behind; it reports false if do has to end, which
// ctx says, too. Each ends with ctx, or when emit returns an error, and returns the reason.
// do and items are not called any more once Each has returned.
func Each[T, R any](ctx context.Context, workers int, items iter.Seq[T],
	do func(ctx context.Context, item T, yield func(R) bool), emit func(R) error) error {
	work, cancel := context.WithCancel(ctx)
	todo, order := make(chan job[T, R]), make(chan job[T, R], ahead*workers)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	all.Go(func() {
		defer close(todo)
		defer close(order)
		for item := range items {
			j := job[T, R]{item, make(chan R, resultsAhead)}
			if !send(work, order, j) || !send(work, todo, j) {
				return
			}
		}
	})
	for range workers {
		all.Go(func() {
			for j := range todo {
				do(work, j.item, func(r R) bool { return send(work, j.results, r) })
				close(j.results)
			}
		})
	}
	for j := range receive(work, order) {
		for r := range receive(work, j.results) {
			if err := emit(r); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// send sends unless ctx ends first.
func send[T any](ctx context.Context, to chan<- T, v T) bool {
	select {
	case to <- v:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// receive iterates over what comes from a channel until that is closed, or ctx ends.
func receive[T any](ctx context.Context, from <-chan T) iter.Seq[T] {
	return func(yield func(T) bool) {
		for {
			select {
			case v, ok := <-from:
				if !ok || ctx.Err() != nil || !yield(v) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}
