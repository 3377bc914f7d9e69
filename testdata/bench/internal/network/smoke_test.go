package network

import (
	"strings"
	"testing"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/internal/foreign"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner/runnertest"
)

// small returns the group with a small image and a fast line, and without what would have
// to be compiled.
func small(r *runner.Runner) runner.Group {
	others := foreign.New(r)
	others.Compile = func() (string, error) { return "", runner.ErrNotBuilt }
	return newGroup(r, settings{Options: Options{Delay: time.Millisecond, Mbps: 1000}, others: others,
		reads: 10, pause: 5 * time.Millisecond, images: 4, imageSize: 4 << 20, cacheSize: 12 << 20})
}

// TestSmoke runs all sections on a small image.
func TestSmoke(t *testing.T) {
	r := runnertest.New(t, t.Context())
	runnertest.Measure(t, r, small(r))
	for _, s := range r.Group.Sections {
		for _, f := range s.Figures {
			// Times and memory depend on the machine, and whether a read waits.
			met := f.Met()
			if strings.Contains(f.Missing, runner.ErrNotBuilt.Error()) || strings.HasPrefix(f.Name, foreign.SOCI.Name) {
				continue // a span of SOCI's is long
			}
			if machine := f.Unit == "s" || f.Unit == "ms" || strings.Contains(f.Name, "memory"); met == "**no**" && !machine || met == "unknown" {
				t.Errorf("%s: %+v is not met", s.Name, f)
			}
		}
	}
}

// TestInterrupted: an interrupted bench leaves nothing running.
func TestInterrupted(t *testing.T) {
	runnertest.Interrupt(t, func(r *runner.Runner) runner.Group {
		r.Only = "cold"
		return small(r)
	})
}
