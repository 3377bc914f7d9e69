package snapshotter

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Flights make a call for an image once for all that want its result, side by side for
// several images. The result of a call that failed is remembered for a while, that of one
// that did not fail as long as keep says.
type flights[T any] struct {
	call   func(ctx context.Context, img Image) (T, error)
	landed func(img Image, err error) // called before waiters are told; nil: nothing
	failed time.Duration              // how long a failure is remembered
	keep   int                        // how many results are remembered that are none

	mu     sync.Mutex
	all    map[Image]*flight[T]
	closed bool
	under  sync.WaitGroup // the calls that are under way
}

// A flight is one call.
type flight[T any] struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when the following are set

	result T
	err    error
	ended  time.Time
}

// begin begins a call for an image, or returns the one that is under way or remembered. The
// call goes on after ctx has ended.
func (f *flights[T]) begin(ctx context.Context, img Image) (*flight[T], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, errClosed
	}
	if known := f.all[img]; known != nil {
		return known, nil
	}
	f.forget()
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	fl := &flight[T]{cancel: cancel, done: make(chan struct{})}
	if f.all == nil {
		f.all = map[Image]*flight[T]{}
	}
	f.all[img] = fl
	f.under.Go(func() {
		defer cancel()
		f.fly(ctx, img, fl)
	})
	return fl, nil
}

func (f *flights[T]) fly(ctx context.Context, img Image, fl *flight[T]) {
	result, err := f.call(ctx, img)
	stopped := err != nil && ctx.Err() != nil
	if f.landed != nil && !stopped {
		f.landed(img, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	fl.result, fl.err, fl.ended = result, err, time.Now()
	switch {
	case f.all[img] != fl:
	case stopped:
		delete(f.all, img)
	case err != nil:
		time.AfterFunc(f.failed, func() { f.remove(img, fl) })
	}
	close(fl.done)
}

// remove forgets a call, if it is still the one for its image.
func (f *flights[T]) remove(img Image, fl *flight[T]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all[img] == fl {
		delete(f.all, img)
	}
}

// forget makes room for one more result. It is called with mu held.
func (f *flights[T]) forget() {
	good := 0
	var oldest Image
	var at time.Time
	for img, fl := range f.all {
		if !fl.landed() || fl.err != nil {
			continue
		}
		if good++; at.IsZero() || fl.ended.Before(at) {
			oldest, at = img, fl.ended
		}
	}
	if good >= f.keep {
		delete(f.all, oldest)
	}
}

// failure returns why the call for an image failed, if that is remembered.
func (f *flights[T]) failure(img Image) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl := f.all[img]; fl != nil && fl.landed() {
		return fl.err
	}
	return nil
}

// stop ends the call for an image, if it is under way.
func (f *flights[T]) stop(img Image) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl := f.all[img]; fl != nil && !fl.landed() {
		delete(f.all, img)
		fl.cancel()
	}
}

// close ends all calls and waits for them. No others begin.
func (f *flights[T]) close() {
	f.mu.Lock()
	f.closed = true
	for _, fl := range f.all {
		fl.cancel()
	}
	f.mu.Unlock()
	f.under.Wait()
}

func (f *flight[T]) landed() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// wait waits for a call until ctx ends.
func (f *flight[T]) wait(ctx context.Context) (result T, err error) {
	select {
	case <-f.done:
		return f.result, f.err
	case <-ctx.Done():
		return result, fmt.Errorf("waiting for it: %w", context.Cause(ctx))
	}
}
