package gnu

import "testing"

// TestUnitAppend has numbers near those where the form changes, and the largest ones.
func TestUnitAppend(t *testing.T) {
	for _, c := range []struct {
		unit string
		n    uint64
		want string
	}{
		{"human-readable", 0, "0"}, {"human-readable", 1023, "1023"}, {"human-readable", 1024, "1.0K"}, {"human-readable", 1025, "1.1K"}, {"human-readable", 10137, "9.9K"}, {"human-readable", 10138, "10K"},
		{"human-readable", 10240, "10K"}, {"human-readable", 10241, "11K"}, {"human-readable", 1023 << 10, "1023K"}, {"human-readable", 1023<<10 + 1, "1.0M"}, {"human-readable", 1<<40 + 1, "1.1T"},
		{"human-readable", 1<<60 - 1, "1.0E"}, {"human-readable", 1 << 60, "1.0E"}, {"human-readable", 1<<63 - 1, "8.0E"}, {"human-readable", 1<<64 - 1, "16E"},
		{"si", 999, "999"}, {"si", 1000, "1.0k"}, {"si", 1001, "1.1k"}, {"si", 999_000, "999k"}, {"si", 999_001, "1.0M"}, {"si", 1_500_000, "1.5M"}, {"si", 1 << 63, "9.3E"},
		{"1", 12345, "12345"}, {"512", 513, "2"}, {"K", 1, "1K"}, {"kB", 1001, "2kB"}, {"KB", 1001, "2kB"}, {"k", 1, "1K"}, {"mB", 1, "1MB"}, {"MiB", 1<<20 + 1, "2MiB"}, {"2K", 2049, "2"}, {"1M", 1, "1"}, {"E", 1 << 63, "8E"}, {"G", 0, "0G"},
	} {
		u, err := ParseUnit(c.unit)
		if got := string(u.Append([]byte("x"), c.n)); err != nil || got != "x"+c.want {
			t.Errorf("%d in %s: got %q and error %v, want x%s", c.n, c.unit, got, err, c.want)
		}
	}
	for _, s := range []string{"", "0", "0K", "X", "KX", "1X", "-1", "1.5M", "16E", "K2", "KBB", "iB", "B", "99999999999999999999"} {
		if u, err := ParseUnit(s); err == nil {
			t.Errorf("--block-size=%s: got %+v, want an error", s, u)
		}
	}
}
