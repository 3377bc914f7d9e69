package packages

import (
	"slices"
	"strings"
)

// compareAPK compares versions of apk: numbers with dots between them and a letter behind
// them, suffixes such as _rc1 and _p2, and the revision of the package, -r3.
func compareAPK(a, b string) int {
	va, vb := parseAPK(a), parseAPK(b)
	for i := range max(len(va.numbers), len(vb.numbers)) {
		switch {
		case i >= len(va.numbers):
			return -1
		case i >= len(vb.numbers):
			return 1
		}
		// Behind a dot, a number that begins with 0 is a fraction: 1.05 is before 1.1.
		x, y := va.numbers[i], vb.numbers[i]
		c := compareDigits(x, y)
		if i > 0 && (strings.HasPrefix(x, "0") || strings.HasPrefix(y, "0")) {
			c = strings.Compare(x, y)
		}
		if c != 0 {
			return c
		}
	}
	if c := strings.Compare(va.letter, vb.letter); c != 0 {
		return c
	}
	for i := range max(len(va.suffixes), len(vb.suffixes)) {
		x, y := va.suffix(i), vb.suffix(i)
		if x.rank != y.rank {
			return sign(x.rank - y.rank)
		}
		if c := compareDigits(x.number, y.number); c != 0 {
			return c
		}
	}
	return compareDigits(va.revision, vb.revision)
}

// compareDigits compares numbers of any length.
func compareDigits(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if len(a) != len(b) {
		return sign(len(a) - len(b))
	}
	return strings.Compare(a, b)
}

// An apkVersion is a version of apk in its parts.
type apkVersion struct {
	numbers  []string
	letter   string
	suffixes []apkSuffix
	revision string
}

type apkSuffix struct {
	rank   int // 0 is no suffix
	number string
}

func (v apkVersion) suffix(i int) apkSuffix {
	if i < len(v.suffixes) {
		return v.suffixes[i]
	}
	return apkSuffix{}
}

// apkSuffixes are the words of suffixes, those before the version itself first, and the
// others: apk-package(5).
var apkSuffixes = [2][]string{{"alpha", "beta", "pre", "rc"}, {"cvs", "svn", "git", "hg", "p"}}

func parseAPK(s string) apkVersion {
	var v apkVersion
	if i := strings.LastIndex(s, "-r"); i >= 0 {
		s, v.revision = s[:i], s[i+2:]
	}
	s, _, _ = strings.Cut(s, "~") // the hash of a commit
	parts := strings.Split(s, "_")
	v.numbers = strings.Split(parts[0], ".")
	last := &v.numbers[len(v.numbers)-1]
	if n := len(*last); n > 0 && (*last)[n-1] >= 'a' && (*last)[n-1] <= 'z' {
		*last, v.letter = (*last)[:n-1], (*last)[n-1:]
	}
	for _, part := range parts[1:] {
		word := strings.TrimRight(part, "0123456789")
		suffix := apkSuffix{number: part[len(word):]}
		if i := slices.Index(apkSuffixes[0], word); i >= 0 {
			suffix.rank = i - len(apkSuffixes[0])
		} else {
			suffix.rank = slices.Index(apkSuffixes[1], word) + 1
		}
		v.suffixes = append(v.suffixes, suffix)
	}
	return v
}
