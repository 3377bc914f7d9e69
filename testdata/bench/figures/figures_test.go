package figures

import (
	"strings"
	"testing"
	"time"
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

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []time.Duration
		want time.Duration
	}{
		{[]time.Duration{5}, 5},
		{[]time.Duration{9, 1, 5}, 5},
		{[]time.Duration{9, 1, 5, 7}, 6},
	} {
		if got := Median(c.of); got != c.want {
			t.Errorf("%v: got %d, want %d", c.of, got, c.want)
		}
	}
}

func TestCells(t *testing.T) {
	for _, c := range []struct {
		f    Figure
		want string
	}{
		{Figure{Name: "a", Unit: "s", Ours: 0.5, Peer: "p", Theirs: 1.25, AtLeast: 2.2}, "a | 0.500 s | p 1.25 s | 2.50 | ≥ 2.20 × | yes | "},
		{Figure{Name: "a", Unit: "s", Ours: 1, Peer: "p", Theirs: 0.5, AtLeast: 0.7}, "a | 1 s | p 0.500 s | 0.50 | ≥ 0.70 × | **no** | "},
		{Figure{Name: "a", Unit: "s", Ours: 1, Peer: "p", PeerMissing: "p is not here", AtLeast: 0.7}, "a | 1 s | p: p is not here |  | ≥ 0.70 × | unknown | "},
		{Figure{Name: "a", Unit: "s", Ours: 1, Peer: "p", Theirs: 3}, "a | 1 s | p 3 s | 3.00 |  |  | "},
		{Figure{Name: "a", Unit: "KiB", Ours: 1025, AtMost: Most(1024)}, "a | 1025 KiB |  |  | ≤ 1024 KiB | **no** | "},
		{Figure{Name: "a", Unit: "ms", Ours: 1.999, AtMost: Most(2)}, "a | 2.00 ms |  |  | ≤ 2 ms | yes | "},
		{Figure{Name: "a", Unit: "ms", Missing: "CORPORA is not set", AtMost: Most(2)}, "a | CORPORA is not set |  |  | ≤ 2 ms | unknown | "},
		{Figure{Name: "a", Unit: "kB", Ours: 401, AtMost: Most(400), Note: "n"}, "a | 401 kB |  |  | ≤ 400 kB | **no** | n"},
		{Figure{Name: "a", Unit: "B", AtMost: Most(0)}, "a | 0 B |  |  | ≤ 0 B | yes | "},
		{Figure{Name: "a", Ours: 3}, "a | 3 |  |  |  |  | "},
	} {
		if got := strings.Join(c.f.cells(), " | "); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestReport(t *testing.T) {
	s := &Section{Title: "S", Command: "go run it"}
	s.Note("a %s", "note")
	for _, v := range []time.Duration{500, 250, 4000} {
		s.Took("walk", "one", v*time.Millisecond)
	}
	s.Took("walk", "three", 2*time.Second)
	s.Took("read", "three", 12345600)
	s.Add(Figure{Name: "f", Unit: "s", Ours: 1.5, AtMost: Most(1.2), Note: "n"}, Figure{Name: "g", Missing: "gone", Peer: "p", AtLeast: 1.2})
	r := Report{Machine: ThisMachine(), Groups: []*Group{{
		Title: "G", Notes: []string{"of it"}, Systems: []System{{"one", "the first", ""}, {"two", "the second", "not installed"}, {"three", "", ""}},
		Sections: []*Section{s, {Title: "T", Command: "and it"}},
	}}}
	var out strings.Builder
	if err := r.WriteMarkdown(&out); err != nil {
		t.Fatal(err)
	}
	_, got, _ := strings.Cut(out.String(), "\n")
	want := `
## G

- of it
- one: the first
- two: left out: not installed
- three: 

### S

To repeat: ` + "`go run it`" + `

- a note

| seconds | one | three |
|---|---|---|
| walk | 0.500 | 2 |
| read |  | 0.0123 |

| figure | ours | peer | ratio | wanted | met | note |
|---|---|---|---|---|---|---|
| f | 1.50 s |  |  | ≤ 1.20 s | **no** | n |
| g | gone | p |  | ≥ 1.20 × | unknown |  |

### T

To repeat: ` + "`and it`" + `

1 figures missed, 1 unknown.
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
