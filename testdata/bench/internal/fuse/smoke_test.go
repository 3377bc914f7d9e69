package fuse

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner/runnertest"
)

// small returns the group with small images. It does not drop the kernel's
// caches.
func small(t *testing.T, r *runner.Runner) runner.Group {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("it needs root")
	}
	runnertest.Needs(t, "umoci", "df", "mkfs.ext4")
	return newGroup(r, settings{
		Options: Options{Loop: true, Also: []Variant{{label: "again", environment: []string{"A=b"}}}},
		bigSize: 3 << 20, packedSize: 1 << 20, diskSize: 256 << 20, pages: 10, starts: 2, again: 1, patience: time.Millisecond, warm: true,
	})
}

// TestSmoke runs all sections on small images. Peers that are not installed
// are left out.
func TestSmoke(t *testing.T) {
	r := runnertest.New(t, t.Context())
	runnertest.Measure(t, r, small(t, r))
	lacks := map[string]bool{}
	for _, s := range r.Group.Systems {
		lacks[s.Name] = s.Lacks != ""
	}
	for _, s := range r.Group.Sections {
		for _, w := range wishes {
			if w.section != s.Name || w.section == "start" { // the image has no program
				continue
			}
			row := s.Row(w.row)
			for _, v := range append(variants, Variant{label: "again"}) {
				name := (&bench{}).imgfsAs(v).name
				if !lacks[name] && (row == nil || len(row.Seconds[name]) == 0) {
					t.Errorf("%s: %s is not measured for %s", w.section, w.row, name)
				}
			}
		}
	}
}

// TestWrongBytes: a system that shows another tree than the unpacked one ends the
// bench.
func TestWrongBytes(t *testing.T) {
	r := runnertest.New(t, t.Context())
	r.Only = "walk"
	work := t.TempDir()
	group := func() runner.Group {
		return newGroup(r, settings{Options: Options{Work: work}, again: 1, patience: time.Millisecond, warm: true})
	}
	small(t, r) // skips
	runnertest.Measure(t, r, group())
	name := filepath.Join(work, "node", "tree", "opt", "000", "file07")
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	content[3] ^= 1
	if err := os.WriteFile(name, content, 0o666); err != nil {
		t.Fatal(err)
	}
	r = runner.New(t.Context(), r.Settings)
	if err := r.Measure(group()); !errors.Is(err, errWrong) {
		t.Errorf("got error %v, want %v", err, errWrong)
	}
	if left := runnertest.Left(t); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestInterrupted: an interrupted bench leaves nothing running or mounted.
func TestInterrupted(t *testing.T) {
	runnertest.Interrupt(t, func(r *runner.Runner) runner.Group { return small(t, r) })
}
