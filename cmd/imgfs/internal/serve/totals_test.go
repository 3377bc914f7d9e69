package serve

import (
	"errors"
	"maps"
	"testing"

	"github.com/imgfs/imgfs/fs/fusefs"
)

// TestTotals: totals only grow, whatever mounts come, go, begin anew or do not answer.
func TestTotals(t *testing.T) {
	tot := NewTotals("/x")
	tot.older[mountKey{"/x/b", "0:1"}] = true
	mount := func(dir string, reads int64) answer {
		var s Stats
		s.Total.Reads, s.Total.Fetched = reads, 10*reads
		return answer{key: mountKey{dir, "0:1"}, stats: s}
	}
	for _, step := range []struct {
		name  string
		a     answer
		want  int64
		state string
	}{
		{"a new mount", mount("/x/a", 5), 5, HealthOK},
		{"it has read more", mount("/x/a", 7), 7, HealthOK},
		{"and nothing since", mount("/x/a", 7), 7, HealthOK},
		{"one from before counts from now", mount("/x/b", 100), 7, HealthOK},
		{"it has read more", mount("/x/b", 101), 8, HealthOK},
		{"another server begins anew", mount("/x/a", 2), 10, HealthOK},
		{"a dead one", answer{key: mountKey{"/x/a", "0:1"}, err: fusefs.ErrDead}, 10, HealthDead},
		{"one that has no stats", answer{key: mountKey{"/x/c", "0:1"}, err: errors.New("x")}, 10, HealthUnknown},
	} {
		tot.mu.Lock()
		state := tot.count(step.a)
		tot.mu.Unlock()
		if got := tot.sum; got.Reads != step.want || got.Fetched != 10*step.want || got.Asked != 0 || state != step.state {
			t.Errorf("%s: got %+v and %q, want %d reads and %q", step.name, got, state, step.want, step.state)
		}
	}
	tot.forget([]fusefs.MountPoint{{Dir: "/x/b", Device: "0:1"}})
	if len(tot.last) != 1 || len(tot.older) != 1 {
		t.Errorf("%d mounts are remembered, want the one that is there", len(tot.last))
	}
	tot.mu.Lock()
	tot.count(mount("/x/a", 3)) // mounted again
	tot.mu.Unlock()
	if tot.sum.Reads != 13 {
		t.Errorf("%d reads, want 13", tot.sum.Reads)
	}
}

// TestTotalsNone: where nothing is mounted every health is told, with 0.
func TestTotalsNone(t *testing.T) {
	sum, health := NewTotals(t.TempDir()).Ask(t.Context())
	want := make(map[string]int)
	for _, h := range healths {
		want[h] = 0
	}
	if sum != (Counted{}) || !maps.Equal(health, want) {
		t.Errorf("got %+v and %v, want nothing and %v", sum, health, want)
	}
}
