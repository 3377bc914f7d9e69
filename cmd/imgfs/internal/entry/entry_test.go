package entry_test

import (
	"math"
	"testing"

	"github.com/imgfs/imgfs/cmd/imgfs/internal/entry"
	"github.com/imgfs/imgfs/fs"
)

// Strangers write the time of a file, and not each of them has four digits of a year.
func TestTime(t *testing.T) {
	for want, a := range map[string]fs.Attr{
		"1970-01-01T00:00:00Z":           {},
		"1969-12-31T23:59:59.000000005Z": {ModSec: -1, ModNsec: 5},
		"9999-12-31T23:59:59.5Z":         {ModSec: 253402300799, ModNsec: 5e8},
		"@253402300800.000000000":        {ModSec: 253402300800},
		"@-62167219201.000000001":        {ModSec: -62167219201, ModNsec: 1},
		"@9223372036854775807.000000000": {ModSec: math.MaxInt64},
	} {
		if got := entry.Time(a); got != want {
			t.Errorf("%d.%09d is %s, want %s", a.ModSec, a.ModNsec, got, want)
		}
	}
}

func TestPath(t *testing.T) {
	for path, want := range map[string]string{
		"": "/", "/": "/", ".": "/", "etc": "/etc", "/etc/": "/etc", "//etc/./passwd": "/etc/passwd", "..": "/..", "/link/../a": "/link/../a",
		"./link/.././/a/": "/link/../a", "a..b": "/a..b", "a..b//c": "/a..b/c", "...": "/...",
	} {
		if got := entry.Path(path); got != want {
			t.Errorf("%q is %q, want %q", path, got, want)
		}
	}
}
