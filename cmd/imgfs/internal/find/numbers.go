package find

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/imgfs/imgfs/fs"
)

// A number is an argument N, +N or -N: exactly, more than, less than N.
type number struct {
	sign int // -1, 0, 1
	n    uint64
}

// cutSign returns the sign of a number, and what is behind it.
func cutSign(s string) (sign int, rest string) {
	if rest, ok := strings.CutPrefix(s, "+"); ok {
		return 1, rest
	}
	if rest, ok := strings.CutPrefix(s, "-"); ok {
		return -1, rest
	}
	return 0, s
}

// parseNumber reads a number, with a sign or without.
func parseNumber(s string) (number, error) {
	sign, digits := cutSign(s)
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return number{}, fmt.Errorf("it is a number N, or +N or -N for more or less than that")
	}
	return number{sign, n}, nil
}

// matches reports whether v is as the number says.
func (n number) matches(v uint64) bool { return cmp.Compare(v, n.n) == n.sign }

// sizeUnits are the units of -size, in bytes.
var sizeUnits = map[byte]uint64{'c': 1, 'w': 2, 'b': 512, 'k': 1 << 10, 'M': 1 << 20, 'G': 1 << 30}

// parseSize reads the argument of -size: a number of units. Sizes are rounded up to them.
func parseSize(s string) (func(size int64) bool, error) {
	unit, digits := uint64(512), s
	if s != "" {
		if u, ok := sizeUnits[s[len(s)-1]]; ok {
			unit, digits = u, s[:len(s)-1]
		}
	}
	n, err := parseNumber(digits)
	if err != nil {
		return nil, fmt.Errorf("it is N, +N or -N, with one of the units c, w, b, k, M and G behind it or in blocks of 512 bytes")
	}
	return func(size int64) bool {
		units := uint64(size) / unit
		if uint64(size)%unit > 0 {
			units++
		}
		return n.matches(units)
	}, nil
}

// A moment is a point in time: whatever a stranger may give a file.
type moment struct {
	sec  int64
	nsec int64 // 0 to 999,999,999
}

func modified(a fs.Attr) moment { return moment{a.ModSec, int64(a.ModNsec)} }

func momentOf(t time.Time) moment { return moment{t.Unix(), int64(t.Nanosecond())} }

func (m moment) compare(other moment) int {
	return cmp.Or(cmp.Compare(m.sec, other.sec), cmp.Compare(m.nsec, other.nsec))
}

// plus returns the moment some seconds later, or the first or last there is.
func (m moment) plus(seconds float64) moment {
	whole, part := math.Modf(seconds)
	if part < 0 {
		whole, part = whole-1, part+1
	}
	sum := float64(m.sec) + whole
	switch {
	case math.IsNaN(sum) || sum >= math.MaxInt64:
		return moment{math.MaxInt64, 0}
	case sum <= math.MinInt64:
		return moment{math.MinInt64, 0}
	}
	nsec := m.nsec + int64(part*1e9)
	return moment{m.sec + int64(whole) + nsec/1e9, nsec % 1e9}
}

const day = 24 * 60 * 60

// parseAge reads the argument of -mtime, in units of a day, or of -mmin, of a minute. A
// file of N days is one of at least N whole days and less than one more; one of N minutes
// is of more than N-1 and at most N. origin is now, or with -daystart the end of this day.
func parseAge(s string, unit float64, origin moment) (func(moment) bool, error) {
	sign, digits := cutSign(s)
	v, err := strconv.ParseFloat(digits, 64)
	if err != nil || digits == "" || strings.Trim(digits, "0123456789.") != "" {
		what := "days"
		if unit < day {
			what = "minutes"
		}
		return nil, fmt.Errorf("it is a number N of %s, or +N or -N for more or less than that", what)
	}
	if unit == day {
		origin = origin.plus(-day)
	}
	from := origin.plus(-v * unit)
	switch {
	case sign > 0:
		return func(m moment) bool { return m.compare(from) < 0 }, nil
	case sign < 0:
		if unit == day {
			from = from.plus(day - 1)
		}
		return func(m moment) bool { return m.compare(from) > 0 }, nil
	}
	to := from.plus(unit)
	return func(m moment) bool { return m.compare(from) > 0 && m.compare(to) <= 0 }, nil
}
