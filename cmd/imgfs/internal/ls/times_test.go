package ls

import (
	"math"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestRecent has the times at which ls goes over from the year to the hour, and back.
func TestRecent(t *testing.T) {
	now := time.Date(2026, 7, 2, 12, 0, 0, 0, time.UTC)
	const half = 15778476 * time.Second
	for _, c := range []struct {
		at   time.Time
		want string
	}{
		{now.Add(-time.Second), "Jul  2 11:59"}, {now, "Jul  2  2026"}, {now.Add(time.Second), "Jul  2  2026"},
		{now.Add(-half), "Dec 31  2025"}, {now.Add(-half + 1), "Dec 31 21:05"}, {time.Unix(0, 0).UTC(), "Jan  1  1970"}, {time.Unix(-1, 0).UTC(), "Dec 31  1969"},
	} {
		if got := string(timeStyles["locale"].append(nil, c.at, now)); got != c.want {
			t.Errorf("%v: got %q, want %q", c.at, got, c.want)
		}
	}
}

func TestPadded(t *testing.T) {
	at := time.Date(2026, 2, 3, 0, 5, 6, 7, time.UTC)
	for format, want := range map[string]string{
		"%-d": "3", "%_d": " 3", "%0e": "03", "%-e": "3", "%-M": "5", "%-H": "0", "%_H": " 0", "%^a": "TUE", "%^B": "FEBRUARY", "%-j": "34", "%-N": "7", "%-": "%-", "%": "%", "x%": "x%", "%Q": "%Q", "%-%": "%", "%l": "12", "%I": "12", "%y%C": "2620",
	} {
		if got := string(AppendTime(nil, format, at)); got != want {
			t.Errorf("%s: got %q, want %q", format, got, want)
		}
	}
}

// TestFarTimes has what a stranger may have written as a time: it takes a line, and
// the listing goes on.
func TestFarTimes(t *testing.T) {
	now := time.Now()
	for _, sec := range []int64{math.MinInt64, math.MinInt64 + 1, -1 << 40, -62135596801, 1 << 40, 1 << 55, 1 << 56, 1 << 60, math.MaxInt64 - 1, math.MaxInt64} {
		for name, style := range timeStyles {
			got := string(style.append(nil, time.Unix(sec, 999999999), now))
			if text := strconv.FormatInt(sec, 10); (strings.TrimSpace(got) == text) != (sec < -1<<56 || sec > 1<<55) {
				t.Errorf("%d in %s: got %q", sec, name, got)
			}
			if got == "" || strings.Contains(got, "\n") || len(got) > 64 {
				t.Errorf("%d in %s: got %q", sec, name, got)
			}
			_ = AppendTime(nil, "%c %D %G %V %u %j %s %C %y", time.Unix(sec, 0))
		}
	}
}

// TestHasDate has the first and the last second of the years that C has.
func TestHasDate(t *testing.T) {
	local := time.Local
	defer func() { time.Local = local }()
	time.Local = time.UTC
	for sec, want := range map[int64]bool{
		math.MinInt64: false, -67768040609740801: false, -67768040609740800: true, 0: true, 67768036191676799: true, 67768036191676800: false, math.MaxInt64: false,
	} {
		if got := HasDate(sec); got != want {
			t.Errorf("%d: got %v", sec, got)
		}
	}
}
