package show

import "testing"

func TestShare(t *testing.T) {
	for _, c := range []struct {
		part, whole int64
		want        string
	}{{0, 100, "0%"}, {1, 1 << 40, "1%"}, {50, 100, "50%"}, {1<<40 - 1, 1 << 40, "99%"}, {100, 100, "100%"}, {0, 0, "100%"}} {
		if got := Share(c.part, c.whole); got != c.want {
			t.Errorf("%d of %d: got %s, want %s", c.part, c.whole, got, c.want)
		}
	}
}
