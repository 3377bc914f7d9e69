package figures

import (
	"strings"
	"testing"
)

func TestNumber(t *testing.T) {
	for _, c := range []struct {
		v    float64
		unit string
		want string
	}{
		{0, "B", "0 B"}, {3, "", "3"}, {1024, "KiB", "1024 KiB"}, {0.5, "s", "0.500 s"}, {1.25, "s", "1.25 s"},
		{99.95, "ms", "100.0 ms"}, {1234.5, "ms", "1234 ms"}, {-0.25, "s", "-0.250 s"}, {0.000012345, "s", "0.00001 s"},
	} {
		if got := Number(c.v, c.unit); got != c.want {
			t.Errorf("Number(%v, %q) = %q, want %q", c.v, c.unit, got, c.want)
		}
	}
}

func TestTable(t *testing.T) {
	var s strings.Builder
	WriteHead(&s, "a", "b")
	WriteRow(&s, "1", "2")
	if got, want := s.String(), "| a | b |\n|---|---|\n| 1 | 2 |\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
