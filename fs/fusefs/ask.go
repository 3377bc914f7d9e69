package fusefs

import (
	"context"
	"time"
)

// patience is how long a system call on a mountpoint, or on any path that the user
// names, or fusermount3, may take. Behind each can be a server that hangs.
const patience = 2 * time.Second

// Ask returns what f returns, or ErrNoAnswer if that takes longer than 2 s, or the
// cause of ctx's end. No signal ends a system call that waits for a server that
// hangs, so f may be left behind: its context has ended by then, and it has to give
// back what it got. f runs in a goroutine of its own.
func Ask[T any](ctx context.Context, f func(ctx context.Context) (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	limited, cancel := context.WithTimeoutCause(ctx, patience, ErrNoAnswer)
	defer cancel()
	answers := make(chan answer, 1)
	go func() {
		value, err := f(limited)
		answers <- answer{value, err}
	}()
	select {
	case a := <-answers:
		return a.value, a.err
	case <-limited.Done():
		var none T
		return none, context.Cause(limited)
	}
}

// askErr is Ask for what has no result.
func askErr(ctx context.Context, f func() error) error {
	_, err := Ask(ctx, func(context.Context) (struct{}, error) { return struct{}{}, f() })
	return err
}
