// Package live measures what it costs that a mount outlives its processes: the time to
// mount and the memory beside a mount with --no-recover, and how long reads pause when
// its processes are killed and when its program is replaced.
package live

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// What is wanted.
const (
	mountMost   = 10   // ms that mounting takes longer
	pauseMedian = 200  // ms
	pauseMost   = 1000 // ms
	upgradeMost = 300  // ms
	memoryMost  = 45   // MB of both processes after a walk of the lab's node
	holderMost  = 4    // MB of the holder's own
)

// A bench is one run of the group.
type bench struct {
	*runner.Runner
	node  *labimage.Image
	cache string
}

// New returns the group.
func New(r *runner.Runner) runner.Group {
	b := &bench{Runner: r}
	return runner.Group{
		Name: "live", Title: "What outlives its processes", Runs: 15, Prepare: b.prepare,
		Sections: []runner.Section{
			{Name: "ready", Title: "Mounting with and without recovery", Run: b.ready},
			{Name: "pauses", Title: "Pauses of reads", Run: b.pauses},
			{Name: "held", Title: "Memory of both processes after a walk", Run: b.held},
		},
		Unable: func() string {
			if os.Geteuid() != 0 {
				return "it needs root, to have the kernel forget"
			}
			return ""
		},
		Unmeasured: func(section, why string) { r.Add(figures.Figure{Name: section, Missing: why}) },
	}
}

// prepare puts the indexes of the image into a cache directory.
func (b *bench) prepare() error {
	var what string
	var err error
	if b.node, what, err = b.Node(b.Dir); err != nil {
		return err
	}
	b.cache = filepath.Join(b.Dir, "cache")
	b.Group.Notes = append(b.Group.Notes, fmt.Sprintf("image: %s, %d layers, in a layout on this machine, its indexes in the cache directory", what, len(b.node.Manifest.Layers)))
	_, err = b.Output(b.Imgfs, "index", "--quiet", "--cache-dir", b.cache, b.image())
	return err
}

func (b *bench) image() string { return "oci:" + b.node.Layout + ":" + labimage.Tag }

// ready measures mounting in turns.
func (b *bench) ready() error {
	ways := []struct {
		name  string
		flags []string
	}{{"with recovery", nil}, {"--no-recover", []string{"--no-recover"}}}
	times := make([][]time.Duration, len(ways))
	var tasks []runner.Task
	for i, w := range ways {
		tasks = append(tasks, runner.Task{Name: w.name, Run: func() error {
			return b.With(b.cache, b.image(), w.flags, func(m *runner.Mount) error {
				if (m.Holds != 0) != (w.flags == nil) {
					return fmt.Errorf("%s: process %d holds the mount", w.name, m.Holds)
				}
				times[i] = append(times[i], m.Ready)
				return nil
			})
		}})
	}
	if _, err := b.InTurns(b.Runs, tasks); err != nil {
		return err
	}
	with, without := figures.Median(times[0]), figures.Median(times[1])
	b.Add(figures.Figure{Name: "mounting", Unit: "ms", Ours: ms(with), Peer: ways[1].name, Theirs: ms(without)},
		figures.Figure{Name: "mounting takes longer by", Unit: "ms", Ours: max(0, ms(with-without)), AtMost: figures.Most(mountMost)})
	return nil
}

// held measures memory after a walk.
func (b *bench) held() error {
	measure := func(flags []string) (both, holder int64, err error) {
		err = b.With(b.cache, b.image(), flags, func(m *runner.Mount) error {
			if err := runner.Walk(m.Dir); err != nil {
				return err
			}
			server, err := runner.ShareOf(m.PID)
			if err != nil {
				return err
			}
			both = server.Proportional
			if m.Holds != 0 {
				memory, err := runner.ShareOf(m.Holds)
				if err != nil {
					return err
				}
				both, holder = both+memory.Proportional, memory.Private
			}
			return nil
		})
		return both, holder, err
	}
	with, holder, err := measure(nil)
	if err != nil {
		return err
	}
	without, _, err := measure([]string{"--no-recover"})
	if err != nil {
		return err
	}
	b.Note("what processes share counts once (PSS); the holder's own is what nobody shares")
	b.Add(figures.Figure{Name: "server and holder", Unit: "MB", Ours: mb(with), Peer: "--no-recover", Theirs: mb(without), AtMost: figures.Most(memoryMost)},
		figures.Figure{Name: "the holder's own", Unit: "MB", Ours: mb(holder), AtMost: figures.Most(holderMost)})
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
func mb(n int64) float64         { return float64(n) / 1e6 }
