package blobs

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/cachetest"
)

// A line is a network in a synctest bubble: requests take a round trip and
// then share the bandwidth.
type line struct {
	rtt  time.Duration
	rate int64 // bytes a second

	mu     sync.Mutex
	active int64
}

// arrivedKey is the context key of what a progressBlob wants to be told.
type arrivedKey struct{}

// carry is an answer of a fakeBlob.
func (l *line) carry(ctx context.Context, _ int, p []byte) (int, error) {
	const piece = 16 << 10
	if err := sleep(ctx, l.rtt); err != nil {
		return 0, err
	}
	l.add(1)
	defer l.add(-1)
	arrived, _ := ctx.Value(arrivedKey{}).(func(int))
	for n := 0; n < len(p); {
		m := min(piece, len(p)-n)
		if err := sleep(ctx, time.Duration(int64(m)*l.add(0)*int64(time.Second)/l.rate)); err != nil {
			return n, err
		}
		if n += m; arrived != nil {
			arrived(n)
		}
	}
	return len(p), nil
}

func (l *line) add(n int64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active += n
	return l.active
}

// lab is the line that the figures are given for: 20 ms, 100 Mbit/s.
func lab() *line { return &line{rtt: 20 * time.Millisecond, rate: 100e6 / 8} }

// transfer is how long n bytes take without the round trip.
func (l *line) transfer(n int64) time.Duration {
	return time.Duration(n * int64(time.Second) / l.rate)
}

// A progressBlob is a fakeBlob that says how far it is. What it has not told
// of is not there yet.
type progressBlob struct{ *cachetest.FakeBlob }

var _ remote.ProgressBlob = progressBlob{}

func (b progressBlob) ReadAtProgress(ctx context.Context, p []byte, off int64, arrived func(n int)) (int, error) {
	right := make([]byte, len(p))
	there := 0
	ctx = context.WithValue(ctx, arrivedKey{}, func(n int) {
		if to := min(n, len(p)); to > there {
			there += copy(p[there:to], right[there:to])
		}
		arrived(n)
	})
	n, err := b.FakeBlob.ReadAt(ctx, right, off)
	if n > there {
		copy(p[there:n], right[there:n])
	}
	return n, err
}

// bigChunk is a chunk as real ones are.
const bigChunk = 64 << 10

// cachedBig is cached with chunks of bigChunk.
func cachedBig(t testing.TB, c *testCache, b remote.Blob, data []byte) *Blob {
	t.Helper()
	blob, err := c.Blob(b, cutsOfSize(data, bigChunk))
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

// timed returns how long do takes.
func timed(do func()) time.Duration {
	began := time.Now()
	do()
	return time.Since(began)
}

// checkTook checks that something took as long as it should, give or take the
// time of a few pieces on the line.
func checkTook(t testing.TB, what string, got, want time.Duration) {
	t.Helper()
	const slack = 10 * time.Millisecond
	if got < want-slack || got > want+slack {
		t.Errorf("%s took %v, want %v", what, got, want)
	}
}
