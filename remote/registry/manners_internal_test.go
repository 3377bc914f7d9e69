package registry

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestRangelessRest: a server that never served a range is not asked for one for five
// minutes; one that did for ten seconds, and for longer each time.
func TestRangelessRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const most, name = 5 * time.Minute, "cdn.example"
		var m manners
		rest := func() time.Duration {
			begun := time.Now()
			m.noteRangeless(name, most)
			time.Sleep(time.Millisecond)
			m.noteRangeless(name, most) // another reader, who met the same
			for m.rangeless(name) {
				time.Sleep(time.Millisecond)
			}
			return time.Since(begun)
		}
		if d := rest(); d != most {
			t.Errorf("one that never served a range rests %v", d)
		}
		time.Sleep(most + time.Millisecond)
		for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 32, 1} {
			m.noteRanged(name)
			if i == 7 {
				time.Sleep(most + time.Millisecond) // it has done well since
			}
			if d, want := rest(), (want * (most >> hiccups)).Round(time.Millisecond); d.Round(time.Millisecond) != want {
				t.Errorf("hiccup %d: it rests %v, want %v", i, d, want)
			}
		}
	})
}
