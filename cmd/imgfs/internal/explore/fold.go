package explore

import (
	"bytes"
	"strings"
)

// A folded is a text that is looked for, whatever its case.
type folded struct {
	lower []byte
	ascii bool
	slash bool
}

func newFolded(text string) folded {
	lower := strings.ToLower(text)
	return folded{lower: []byte(lower), ascii: isASCII(lower), slash: strings.Contains(text, "/")}
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// in reports whether a name has the text.
func (f *folded) in(name []byte) bool {
	if !f.ascii {
		return bytes.Contains(bytes.ToLower(name), f.lower)
	}
	n := len(f.lower)
	if n == 0 {
		return true
	}
	first := f.lower[0]
	for i := 0; i+n <= len(name); i++ {
		if lower(name[i]) != first {
			continue
		}
		k := 1
		for k < n && lower(name[i+k]) == f.lower[k] {
			k++
		}
		if k == n {
			return true
		}
	}
	return false
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
