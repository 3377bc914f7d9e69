package show

import (
	"fmt"
	"strings"

	"github.com/imgfs/imgfs/remote/printable"
	"github.com/opencontainers/go-digest"
)

// Bytes writes a number of bytes for people, in powers of 1000.
func Bytes(n int64) string {
	const units = "kMGT"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, u := float64(n)/1000, 0
	for v >= 999.95 && u < len(units)-1 {
		v, u = v/1000, u+1
	}
	return fmt.Sprintf("%.1f %cB", v, units[u])
}

// Seconds writes a time span for people.
func Seconds(seconds float64) string {
	switch {
	case seconds >= 1e9:
		return fmt.Sprintf("%.3g s", seconds)
	case seconds >= 10:
		return fmt.Sprintf("%.0f s", seconds)
	case seconds >= 1:
		return fmt.Sprintf("%.1f s", seconds)
	}
	return fmt.Sprintf("%.0f ms", seconds*1000)
}

// Count writes a number of things for people, with the name of one of them.
func Count(n int, what string) string {
	plural := what + "s"
	if what == "index" {
		plural = "indexes"
	}
	if n == 1 {
		plural = what
	}
	return fmt.Sprintf("%d %s", n, plural)
}

// Share writes the part of a whole in percent. It is 100 % only of all, and 0 %
// only of nothing.
func Share(part, whole int64) string {
	switch {
	case part >= whole:
		return "100%"
	case part <= 0:
		return "0%"
	}
	return fmt.Sprintf("%d%%", min(99, max(1, int64(float64(part)/float64(whole)*100+0.5))))
}

// ShortDigest writes the start of a digest, as docker does. It is a cell of a
// table.
func ShortDigest(d digest.Digest) string {
	_, hex, _ := strings.Cut(d.String(), ":")
	return printable.Cell(printable.Cut(hex, 12))
}
