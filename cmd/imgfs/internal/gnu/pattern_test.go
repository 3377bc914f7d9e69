package gnu

import (
	"strings"
	"testing"
	"time"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"", "", true}, {"", "x", false}, {"x", "x", true}, {"x", "X", false}, {"*", "", true}, {"*", ".x/y", true}, {"?", "é", true}, {"?", "\xff", true}, {"?", "", false}, {"??", "x", false},
		{"*.c", "a.c", true}, {"*.c", ".c", true}, {"*.c", "a.cc", false}, {"a*b*c", "axxbyybzc", true}, {"a*b*c", "axxbyybz", false}, {"**x", "x", true},
		{"[abc]", "b", true}, {"[abc]", "d", false}, {"[!abc]", "d", true}, {"[^abc]", "a", false}, {"[a-c]x", "bx", true}, {"[]]", "]", true}, {"[!]]", "]", false}, {"[]-a]", "^", true}, {"[a-]", "-", true}, {"[-a]", "-", true},
		{"[", "[", true}, {"[x", "[x", true}, {"[]", "[]", true}, {"x[", "x[", true}, {"[[:alpha:]]", "q", true}, {"[[:digit:]x]", "x", true}, {"[[:digit:]]", "q", false}, {"[[:nope:]]", "n", false}, {"[[.x.]]", "x", true}, {"[[=x=]]", "x", true},
		{`\*`, "*", true}, {`\*`, "x", false}, {`\\`, `\`, true}, {`x\`, `x\`, false}, {`[\]]`, "]", true}, {`[a\-c]`, "b", false},
		{"\xff", "\xff", true}, {"[\xff]", "\xff", true}, {"\xff", "\xfe", false}, {"é", "é", true}, {"\ufffd", "\xff", false},
	} {
		if got := Match(c.pattern, c.name); got != c.want {
			t.Errorf("%q matches %q: %t, want %t", c.pattern, c.name, got, c.want)
		}
	}
}

// TestSlowPatterns: no pattern takes long.
func TestSlowPatterns(t *testing.T) {
	begun := time.Now()
	for _, pattern := range []string{strings.Repeat("*a", 100) + "b", strings.Repeat("*", 1000) + "b", strings.Repeat("*?", 100) + "b", strings.Repeat("[", 5000)} {
		Match(pattern, strings.Repeat("a", 4096))
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

func FuzzMatch(f *testing.F) {
	for _, c := range [][2]string{{"*[a-z]?", "abc"}, {"[!]x]", "]"}, {`\`, ""}, {"[[:alpha:", "x"}, {"\xff*", "\xff\xfe"}} {
		f.Add(c[0], c[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(pattern) > 4096 || len(name) > 4096 {
			return // names are shorter
		}
		Match(pattern, name)
		var quoted strings.Builder
		for i := range len(name) {
			if strings.IndexByte(`*?[\`, name[i]) >= 0 {
				quoted.WriteByte('\\')
			}
			quoted.WriteByte(name[i])
		}
		if !Match(quoted.String(), name) || !Match("*"+quoted.String()+"*", name) {
			t.Errorf("%q does not match %q", quoted.String(), name)
		}
	})
}
