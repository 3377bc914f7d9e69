package build

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/imgfs/imgfs/layerindex/internal/inflate/inflatetest"
	"github.com/imgfs/imgfs/layerindex/internal/samples"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// A pacedSource ends its reader's context after so many bytes, and then gives
// what there is as long as it is asked: it does not look at the context.
type pacedSource struct {
	r      io.Reader
	left   int
	cancel func()
}

func (s *pacedSource) Read(p []byte) (int, error) {
	if s.left <= 0 {
		s.cancel()
	}
	n, err := s.r.Read(p[:min(len(p), 100_000)])
	s.left -= n
	return n, err
}

// TestBuildCancelAtOnce ends the context when one stage or another is the one
// at work: Build returns soon, and leaves nothing running.
func TestBuildCancelAtOnce(t *testing.T) {
	testenv.Slow(t)
	noise := make([]byte, inflatetest.Scale(16<<20))
	rng := rand.New(rand.NewPCG(1, 9))
	for i := 0; i < len(noise); i += 8 {
		copy(noise[i:], []byte{byte(rng.Uint32()), byte(rng.Uint32() >> 8), 1, 2, 3, 4, 5, byte(i)})
	}
	plain := samples.TarOf(t, "noise", noise)
	// 1 GiB of zeros in 1 MB: all of the time goes to what comes behind the
	// blob.
	nothing := zeroLayer(t, 1<<10)
	for name, blob := range map[string][]byte{
		"plain":                 plain,
		"gzip":                  samples.Gzip(t, plain),
		"zstd":                  samples.ZstdFrames(t, slices.Clone(plain), 1<<20),
		"highly compressed":     nothing,
		"zstd of one big frame": samples.ZstdFrames(t, slices.Clone(plain), len(plain)),
	} {
		for _, part := range []int{0, 2, 8} {
			ctx, cancel := context.WithCancel(context.Background())
			before := runtime.NumGoroutine()
			var at time.Time
			src := &pacedSource{bytes.NewReader(blob), len(blob) * part / 10, func() {
				if at.IsZero() {
					at = time.Now()
				}
				cancel()
			}}
			_, err := Index(ctx, claim(blob, plain), src, nil)
			took := time.Since(at)
			cancel()
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s, cancelled after %d tenths: %v", name, part, err)
			}
			if limit := 200 * time.Millisecond * raceFactor; took > limit {
				t.Errorf("%s, cancelled after %d tenths: took %v, want at most %v", name, part, took, limit)
			}
			settle(t, before)
		}
	}
}
