package serve

import (
	"context"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
)

// publishGrace is how long the end of a mount waits for publishing to end.
const publishGrace = endLimit / 2

// beginPublish begins to publish what there is, unless a server before this one has. stop
// ends that.
func (m *Mount) beginPublish(ctx context.Context) (stop func()) {
	if m.keeper.noted().Published {
		return func() {}
	}
	return beginPublish(ctx, m.Env, func(ctx context.Context) error {
		err := m.Publish(ctx)
		if err == nil {
			err = m.keeper.change(func(n *note) { n.Published = true })
		}
		return err
	})
}

// beginPublish begins to publish what publish does, which ends with its context. stop ends
// that, and waits for it, but not for long: what is being sent was of use to others alone.
func beginPublish(ctx context.Context, e *cli.Env, publish func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := publish(ctx); err != nil && ctx.Err() == nil {
			e.Warnf("the indexes of the layers are not published: %s", cli.Describe(err))
		}
	}()
	return func() {
		cancel()
		select {
		case <-done:
		case <-time.After(publishGrace):
		}
	}
}
