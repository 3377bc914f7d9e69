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
