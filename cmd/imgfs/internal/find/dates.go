package find

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// layouts are the dates that -newermt reads, without what may stand behind them.
var layouts = []string{"2006-1-2", "2006/1/2", "1/2/2006", "2 Jan 2006", "Jan 2 2006", "Jan 2, 2006", "20060102",
	"Mon Jan 2 15:04:05 2006", "Mon Jan 2 15:04:05 MST 2006", time.RFC1123, time.RFC1123Z, "02 Jan 2006 15:04:05 -0700"}

// hours are the times of day behind a date, and zones what stands behind those. Seconds
// may have a fraction.
var (
	hours = []string{"", " 15:04", " 15:04:05", "T15:04", "T15:04:05"}
	zones = []string{"", "Z07:00", " Z07:00", "-0700", " -0700", "-07", " -07", " MST"}
)

// parseDate reads a date as people write it: 2024-01-31, with a time behind it and a zone
// or without, @SECONDS, words such as yesterday, and 3 days ago. Without a zone it is
// local time, as that of now.
func parseDate(s string, now time.Time) (moment, error) {
	text := strings.Join(strings.Fields(s), " ")
	if seconds, ok := strings.CutPrefix(text, "@"); ok {
		return parseSeconds(seconds)
	}
	switch strings.ToLower(text) {
	case "now", "today", "":
		if text == "" {
			return momentOf(midnight(now)), nil
		}
		return momentOf(now), nil
	case "midnight":
		return momentOf(midnight(now)), nil
	case "yesterday":
		return momentOf(now.AddDate(0, 0, -1)), nil
	case "tomorrow":
		return momentOf(now.AddDate(0, 0, 1)), nil
	}
	if t, ok := relative(strings.ToLower(text), now); ok {
		return momentOf(t), nil
	}
	for _, layout := range layouts {
		for _, hour := range hours {
			for _, zone := range zones {
				if zone != "" && hour == "" {
					continue
				}
				if t, err := time.ParseInLocation(layout+hour+zone, text, now.Location()); err == nil {
					return momentOf(t), nil
				}
			}
		}
	}
	return moment{}, fmt.Errorf("it is no date such as 2024-01-31, '2024-01-31 18:00', @1706724000, yesterday or '3 days ago'")
}

// midnight returns when the day of a time began.
func midnight(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, t.Location())
}

// parseSeconds reads seconds since 1970, with a fraction or without.
func parseSeconds(s string) (moment, error) {
	whole, fraction, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	nsec, fracErr := strconv.ParseUint((fraction + "000000000")[:9], 10, 32)
	if err != nil || fracErr != nil || strings.Trim(fraction, "0123456789") != "" {
		return moment{}, fmt.Errorf("@ stands before a number of seconds since 1970")
	}
	m := moment{sec, int64(nsec)}
	if strings.HasPrefix(s, "-") && nsec > 0 && sec > -1<<62 {
		m = moment{sec - 1, 1e9 - int64(nsec)}
	}
	return m, nil
}

// relative reads N UNIT, or N UNIT ago, and last UNIT or next UNIT.
func relative(s string, now time.Time) (time.Time, bool) {
	if end := len(s) - len(strings.TrimLeft(s, "+-0123456789")); end < len(s) && s[end] != ' ' {
		s = s[:end] + " " + s[end:] // -1day
	}
	fields := strings.Fields(s)
	sign := 1
	if n := len(fields); n > 1 && fields[n-1] == "ago" {
		sign, fields = -1, fields[:n-1]
	}
	if len(fields) == 0 || len(fields) > 2 {
		return now, false
	}
	n, unit := 1, fields[len(fields)-1]
	if len(fields) == 2 {
		switch fields[0] {
		case "last":
			n = -1
		case "next", "a":
		default:
			v, err := strconv.ParseInt(fields[0], 10, 32)
			if err != nil {
				return now, false
			}
			n = int(v)
		}
	}
	n *= sign
	switch strings.TrimSuffix(unit, "s") {
	case "sec", "second":
		return now.Add(time.Duration(n) * time.Second), true
	case "min", "minute":
		return now.Add(time.Duration(n) * time.Minute), true
	case "hour":
		return time.Unix(now.Unix()+int64(n)*3600, int64(now.Nanosecond())), true
	case "day":
		return now.AddDate(0, 0, n), true
	case "week":
		return now.AddDate(0, 0, 7*n), true
	case "fortnight":
		return now.AddDate(0, 0, 14*n), true
	case "month":
		return now.AddDate(0, n, 0), true
	case "year":
		return now.AddDate(n, 0, 0), true
	}
	return now, false
}
