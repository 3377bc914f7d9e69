package treetar

import (
	"strings"
	"testing"
)

func TestPaxTime(t *testing.T) {
	for _, c := range []struct {
		sec  int64
		nsec uint32
		want string
	}{
		{0, 0, "0"}, {0, 5e8, "0.5"}, {1, 1, "1.000000001"}, {-1, 0, "-1"}, {-1, 5e8, "-0.5"}, {-2, 75e7, "-1.25"},
		{1 << 40, 120, "1099511627776.00000012"}, {-1 << 63, 0, "-9223372036854775808"}, {-1 << 63, 1, "-9223372036854775807.999999999"},
	} {
		if got := paxTime(c.sec, c.nsec); got != c.want {
			t.Errorf("%d s %d ns: got %s, want %s", c.sec, c.nsec, got, c.want)
		}
	}
}

func TestSplitName(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct{ whole, name, prefix string }{
		{"a", "a", ""}, {x(100), x(100), ""}, {x(155) + "/" + x(100), x(100), x(155)}, {x(99) + "/" + "b", "b", x(99)},
		{x(60) + "/" + x(60) + "/", x(60) + "/", x(60)}, {x(156) + "/b", "", ""}, {x(101), "", ""}, {x(101) + "/", "", ""}, {"/" + x(100), "", ""},
		{"a/" + x(101), "", ""},
	} {
		name, prefix, ok := splitName(c.whole)
		if want := c.name != ""; ok != want || ok && (name != c.name || prefix != c.prefix) {
			t.Errorf("%s: got %q and %q, %t", c.whole, prefix, name, ok)
		}
	}
}

func TestPaxRecord(t *testing.T) {
	for n, want := range map[int]string{1: "6 k=", 4: "9 k=", 5: "11 k=", 93: "99 k=", 94: "101 k="} {
		var p paxRecords
		p.add("k", strings.Repeat("v", n))
		if got := p.text(); !strings.HasPrefix(got, want) || len(got) != atoi(got) {
			t.Errorf("a value of %d bytes: got %d bytes that begin with %.5q", n, len(got), got)
		}
	}
	if got := xattrName("user.a=b%"); got != "user.a%3Db%25" {
		t.Errorf("got %s", got)
	}
}

func atoi(s string) (n int) {
	for _, c := range s {
		if c < '0' || c > '9' {
			return n
		}
		n = n*10 + int(c-'0')
	}
	return n
}
