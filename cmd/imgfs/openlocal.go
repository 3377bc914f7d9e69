package main

import (
	"context"
	"os"
	"time"
)

// openWaiting is os.OpenFile, which waits for the other end of a pipe, until ctx ends. So
// does what reads or writes the pipe later: it fails with os.ErrDeadlineExceeded.
func openWaiting(ctx context.Context, name string, flag int) (*os.File, error) {
	f, err := untilDone(ctx, func() (*os.File, error) { return os.OpenFile(name, flag, 0) })
	if err == nil {
		// Regular files have no deadline, and need none.
		context.AfterFunc(ctx, func() { _ = f.SetDeadline(time.Unix(1, 0)) })
	}
	return f, err
}

// untilDone returns what f returns, or the error of ctx if that ends first: nothing ends a
// system call that waits but this process, and f is left behind.
func untilDone[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	c := make(chan result, 1)
	go func() {
		value, err := f()
		c <- result{value, err}
	}()
	select {
	case r := <-c:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}
