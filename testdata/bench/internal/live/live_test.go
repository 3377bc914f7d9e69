package live

import (
	"os"
	"testing"

	"github.com/imgfs/imgfs/testdata/bench/internal/runner/runnertest"
)

// TestMain lets the test binary be the reader that the program starts.
func TestMain(m *testing.M) { os.Exit(runnertest.Main(m.Run)) }

// TestSmoke runs all sections on a small image.
func TestSmoke(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it needs root")
	}
	r := runnertest.New(t, t.Context())
	runnertest.Measure(t, r, New(r))
	for _, s := range r.Group.Sections {
		if len(s.Figures) == 0 {
			t.Errorf("%s: nothing is measured", s.Name)
		}
		for _, f := range s.Figures {
			if f.Missing != "" || f.Ours == 0 && f.Name != "mounting takes longer by" {
				t.Errorf("%s: %+v", s.Name, f)
			}
		}
	}
}

// TestParseMemory reads what Linux 6.18 says.
func TestParseMemory(t *testing.T) {
	text := "00400000-7ffd rollup\nRss: 11000 kB\nPss: 3000 kB\nPrivate_Clean: 1000 kB\nPrivate_Dirty: 500 kB\n"
	got, err := parseMemory(text)
	if want := (memory{shared: 3000 << 10, private: 1500 << 10}); err != nil || got != want {
		t.Errorf("got %+v and error %v, want %+v", got, err, want)
	}
	if _, err := parseMemory("Rss: 1 kB"); err == nil {
		t.Error("something without PSS is memory")
	}
}
