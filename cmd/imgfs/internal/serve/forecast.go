package serve

import (
	"context"
	"sync"
	"time"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/cli"
	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/fs/profile"
	"github.com/imgfs/imgfs/remote/printable"
)

// forecastTime is how long after a mount what is read is noted, and what is expected is
// fetched.
const forecastTime = 3 * time.Minute

// forecastRest is how long nothing is fetched ahead after that has failed.
const forecastRest = 10 * time.Second

// A Forecaster says what is expected to be read of an image, and notes what is read.
type Forecaster struct {
	// Profile is what is expected; nil for what the cache knows, or else what is published.
	Profile *profile.Profile
}

// beginForecast begins the forecast of a mount.
func (m *Mount) beginForecast(ctx context.Context, stats *statsServer) (stop func()) {
	// A successor would take what its first minutes see for what programs read first.
	if m.Forecaster == nil || m.Succession != nil {
		return func() {}
	}
	return m.Forecaster.Begin(ctx, m.Env, m.Image, m.Offline, stats.forecasting)
}

// Begin begins to fetch what is expected to be read of an image, unless offline, and to note
// what is read. stop ends that, and has the cache remember what was read. begun, if not nil,
// is called with the forecast.
func (x *Forecaster) Begin(ctx context.Context, e *cli.Env, img *image.Image, offline bool, begun func(*image.Forecast)) (stop func()) {
	r := img.Resolved()
	if !r.HasProfile() {
		if x.Profile != nil {
			e.Warnf("%s is on this machine: nothing of it is fetched ahead, and the profile is not used", printable.Name(r.Name()))
		}
		return func() {}
	}
	ctx, cancel := context.WithTimeout(ctx, forecastTime)
	var done sync.WaitGroup
	done.Go(func() {
		defer cancel()
		p := x.Profile
		if p == nil {
			p = r.KeptProfile()
		}
		f := img.Forecast(p)
		defer f.Stop()
		if begun != nil {
			begun(f)
		}
		var asking sync.WaitGroup
		if p == nil {
			asking.Go(func() {
				if p := r.PublishedProfile(ctx); p != nil {
					f.Expect(p)
				}
			})
		}
		for !offline && ctx.Err() == nil {
			if err := f.Run(ctx); err != nil && ctx.Err() == nil {
				e.Debugf("what is expected to be read could not be fetched: %s", cli.Describe(err))
			}
			select {
			case <-ctx.Done():
			case <-time.After(forecastRest):
			}
		}
		<-ctx.Done()
		r.NoteReads(f.Reads()) // at once: somebody may look for it
		asking.Wait()
	})
	return func() {
		cancel()
		done.Wait()
	}
}

// forecasting notes that a forecast has begun.
func (s *statsServer) forecasting(f *image.Forecast) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forecast = f
}
