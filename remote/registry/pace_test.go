package registry

import (
	"sync/atomic"
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	type step struct {
		n     int
		after time.Duration
	}
	const second = time.Second
	for _, tc := range []struct {
		name   string
		active int64
		steps  []step
		spent  time.Duration // since the last progress, at the end
	}{
		{"nothing", 1, []step{{0, second}, {0, second}}, 2 * second},
		{"a byte each 5 s", 1, []step{{1, 5 * second}, {1, 5 * second}, {1, 5 * second}}, 15 * second},
		{"1 KiB/s", 1, []step{{512, second / 2}, {1024, second}}, 0},
		{"a little less", 1, []step{{1023, second}, {1023, second}}, 2 * second},
		{"a burst, then a trickle", 1, []step{{1 << 20, second}, {1, second}, {1, second}}, 2 * second},
		{"bytes at once, and none later", 1, []step{{1, 0}, {1, 0}, {1, 0}, {0, second}}, second},
		{"late but enough", 1, []step{{0, 30 * second}, {40 << 10, second}}, 0},
		{"a share of one in 16", 16, []step{{64, second}, {64, second}}, 0},
		{"less than a share", 16, []step{{63, second}, {63, second}}, 2 * second},
		{"no request under way", 0, []step{{1024, second}}, 0},
	} {
		p := pace{active: new(atomic.Int64)}
		p.active.Store(tc.active)
		for _, s := range tc.steps {
			p.add(s.n, s.after)
		}
		if p.spent != tc.spent {
			t.Errorf("%s: %s without progress, want %s", tc.name, p.spent, tc.spent)
		}
	}
}

// A reader's time goes on while there is only a trickle.
func TestRetryBudgetTrickle(t *testing.T) {
	opts := (&Options{}).withDefaults()
	parent := newRetryBudget(opts, true)
	p := newRetryBudget(opts, false)
	p.parent = parent
	begun := time.Now().Add(-50 * time.Second)
	for _, p := range []*retryBudget{p, parent} {
		p.since, p.paced = begun, begun
	}
	p.progress(100)
	if p.since != begun || parent.since != begun {
		t.Error("100 bytes in 50 s give more time")
	}
	p.progress(60 << 10)
	if p.since == begun || parent.since == begun {
		t.Error("60 KiB in 50 s give no more time")
	}
}
