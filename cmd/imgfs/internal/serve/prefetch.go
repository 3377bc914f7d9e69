package serve

import (
	"context"
	"sync"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/cmd/imgfs/internal/show"
)

// beginPrefetch begins to bring all of a mounted image into the cache, unless a server
// before this one has done it, or has failed to. stop ends that and waits for it.
func (m *Mount) beginPrefetch(ctx context.Context, stats *statsServer) (stop func()) {
	if p := m.keeper.noted().Prefetch; p.State == "done" || p.State == "failed" {
		stats.prefetching(p)
		return func() {}
	}
	return stats.beginPrefetch(ctx, m.Env, func(p PrefetchState) { _ = m.keeper.change(func(n *note) { n.Prefetch = p }) })
}

// beginPrefetch begins to prefetch, and calls ended with the result. stop ends
// that and waits for it. The log has the result before the stats do.
func (s *statsServer) beginPrefetch(ctx context.Context, e *cli.Env, ended func(PrefetchState)) (stop func()) {
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
			ended(p)
			s.prefetching(p)
		default:
			e.Warnf("prefetch: all %s are in the cache", show.Bytes(p.All))
			p.State = "done"
			ended(p)
			s.prefetching(p)
		}
	})
	return func() {
		cancel()
		done.Wait()
	}
}
