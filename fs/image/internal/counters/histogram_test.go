package counters

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestBuckets(t *testing.T) {
	last := 0
	for d := WaitFloor; d < 2*time.Hour; d += 1 + d/50 {
		i := bucketOf(d)
		if i < last || i > last+1 {
			t.Fatalf("%v is in bucket %d, a little less in %d", d, i, last)
		}
		last = i
		if end := bucketEnd(i); i < stepsPerOctave*octaves-1 && (end <= d || end > d+d/stepsPerOctave) {
			t.Errorf("the bucket of %v ends at %v", d, end)
		}
	}
	if last != stepsPerOctave*octaves-1 {
		t.Errorf("two hours are in bucket %d, want the last", last)
	}
}

func TestHistogram(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 2, 3, 99, 100, 101, 5000} {
		var h histogram
		h.add(WaitFloor - 1) // does not count
		var all []time.Duration
		for range n {
			d := WaitFloor + time.Duration(rng.ExpFloat64()*float64(300*time.Millisecond))
			all = append(all, d)
			h.add(d)
		}
		slices.Sort(all)
		var counts Waits
		h.addTo(&counts)
		got, p50, p99 := counts.Summary()
		if got != int64(n) {
			t.Errorf("%d durations, want %d", got, n)
		}
		if n == 0 {
			if p50 != 0 || p99 != 0 {
				t.Errorf("without durations: %v, %v", p50, p99)
			}
			continue
		}
		for _, q := range []struct {
			name      string
			got, want time.Duration
		}{{"half", p50, all[(n+1)/2-1]}, {"all but a hundredth", p99, all[n-n/100-1]}} {
			if q.got < q.want || q.got > q.want+q.want/stepsPerOctave+1 {
				t.Errorf("%s of %d: %v, want %v and at most an eighth more", q.name, n, q.got, q.want)
			}
		}
	}
}
