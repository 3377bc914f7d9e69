package registry

import (
	"context"
	"time"
)

// A ctxMutex is a mutex that is waited for as long as an attempt has time: one
// reader at a time does what all of them need. It holds an element while it is
// locked.
type ctxMutex chan struct{}

func newCtxMutex() ctxMutex { return make(ctxMutex, 1) }

// lock locks m. The error says why waiting ended before.
func (m ctxMutex) lock(ctx context.Context) error {
	var late <-chan time.Time
	if deadline := attemptOf(ctx).deadline(); !deadline.IsZero() {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case m <- struct{}{}:
		return nil
	case <-late:
		return errStalled
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (m ctxMutex) unlock() { <-m }
