package main

import (
	"context"
	"time"

	"github.com/imgfs/imgfs/fs/fusefs"
)

// patience is how long looking at the files that arguments may name can take. Behind any
// path can be a file system that hangs.
const patience = 2 * time.Second

// patiently returns what look returns, or fusefs.ErrNoAnswer if that takes too long, or the
// cause of ctx's end. look may be left behind: it must change nothing.
func patiently[T any](ctx context.Context, look func(ctx context.Context) (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fusefs.ErrNoAnswer)
	defer cancel()
	answers := make(chan answer, 1)
	go func() {
		value, err := look(ctx)
		answers <- answer{value, err}
	}()
	select {
	case a := <-answers:
		return a.value, a.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}
