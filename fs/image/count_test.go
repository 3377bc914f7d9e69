package image

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
		var counts waitCounts
		h.addTo(&counts)
		got, p50, p99 := counts.summary()
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

func TestCountedFilesAreBounded(t *testing.T) {
	const files = maxCountedFiles + 100
	c := &counters{}
	c.files.init(files)
	for id := range uint32(files) {
		if c.files.get(id) != nil {
			t.Fatalf("file %d has counters before anything is fetched for it", id)
		}
		m := &meteredContext{t.Context(), c, id}
		m.Fetched(2)
		m.Fetched(3)
		m.Decoded(1) // there is no candidate: it does not count
	}
	n := 0
	for id, f := range c.files.all() {
		if n++; f.fetched.Load() != 5 || f != c.files.get(id) {
			t.Fatalf("file %d: %d bytes fetched, want 5", id, f.fetched.Load())
		}
	}
	if n != maxCountedFiles {
		t.Errorf("%d files have counters, want %d", n, maxCountedFiles)
	}
}
