package counters

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// WaitFloor is how long a read takes at least that counts as one that
// waited: one that finds its bytes on disk and has to check and decode them
// takes a few milliseconds at most, one that finds them in memory microseconds.
const WaitFloor = time.Millisecond

const (
	// stepsPerOctave is how many buckets there are from a duration to twice
	// as long: a quantile is at most an eighth too high.
	stepsPerOctave = 8
	octaves        = 20 // 1 ms to 17 minutes
)

// A histogram counts durations from WaitFloor on, without locks.
type histogram struct {
	buckets [stepsPerOctave * octaves]atomic.Int64
}

// Waits are how many durations there are in each bucket.
type Waits [stepsPerOctave * octaves]int64

// bucketOf returns the bucket of a duration that is not below WaitFloor.
func bucketOf(d time.Duration) int {
	v := uint64(d / (WaitFloor / stepsPerOctave)) // 8 and more
	octave := bits.Len64(v / (stepsPerOctave * 2))
	return min(octave*stepsPerOctave+int(v>>octave)-stepsPerOctave, stepsPerOctave*octaves-1)
}

// bucketEnd returns the duration at which a bucket ends.
func bucketEnd(i int) time.Duration {
	return WaitFloor / stepsPerOctave * time.Duration(i%stepsPerOctave+stepsPerOctave+1) << (i / stepsPerOctave)
}

// add counts a duration, if it is long enough.
func (h *histogram) add(d time.Duration) {
	if d >= WaitFloor {
		h.buckets[bucketOf(d)].Add(1)
	}
}

// addTo adds the histogram to counts.
func (h *histogram) addTo(counts *Waits) {
	for i := range h.buckets {
		counts[i] += h.buckets[i].Load()
	}
}

// Summary returns how many durations there are, and what half and all but a
// hundredth of them are below.
func (w *Waits) Summary() (n int64, p50, p99 time.Duration) {
	for _, c := range w {
		n += c
	}
	below := func(want int64) time.Duration {
		for i, c := range w {
			if want -= c; want <= 0 {
				return bucketEnd(i)
			}
		}
		return 0
	}
	if n == 0 {
		return 0, 0, 0
	}
	return n, below((n + 1) / 2), below(n - n/100)
}
