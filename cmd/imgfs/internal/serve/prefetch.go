package serve

import (
	"context"
	"sync"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
)

// beginPrefetch begins to bring all of a mounted image into the cache. stop ends
// that and waits for it. The log has the result before the stats do.
func (s *statsServer) beginPrefetch(ctx context.Context, e *cli.Env) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	p := PrefetchState{State: "running"}
	s.prefetching(p)
	var done sync.WaitGroup
	done.Go(func() {
		err := s.image.Fill(ctx, func(have, all int64) {
			p.Have, p.All = have, all
			s.prefetching(p)
		})
		switch {
		case ctx.Err() != nil:
		case err != nil:
			e.Warnf("prefetch: only %s of %s are in the cache: %s", show.Bytes(p.Have), show.Bytes(p.All), cli.Describe(err))
			p.State = "failed"
			s.prefetching(p)
		default:
			e.Warnf("prefetch: all %s are in the cache", show.Bytes(p.All))
			p.State = "done"
			s.prefetching(p)
		}
	})
	return func() {
		cancel()
		done.Wait()
	}
}
