package starts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
)

// What is wanted of imgfs as a snapshotter.
const (
	coldWalk        = 1.3 // times the time with unpacked layers
	warmWalk        = 1.1 // as long, but for noise
	chainMost       = 40  // MB of the processes of a chain, after a walk of all of node
	snapshotterMost = 10  // MB
)

// A state is what the cache of imgfs has of an image before it is pulled.
type state struct {
	name   string
	cache  string  // is copied for each pull
	faster float64 // times as fast as overlayfs is wanted
}

// states makes a cache for each state.
func (b *bench) states(img *image, p program) ([]state, error) {
	none, all := filepath.Join(b.Dir, "none"), filepath.Join(b.Dir, "all")
	if err := os.MkdirAll(none, 0o777); err != nil {
		return nil, err
	}
	if _, err := b.copyOf(img.indexed, filepath.Base(all)); err != nil {
		return nil, err
	}
	if _, err := b.pullAndRun(snapshotter{name: "imgfs", cache: all}, img.now, p); err != nil {
		return nil, err
	}
	return []state{{"nothing is there", none, 2}, {"the indexes are there", img.indexed, 6}, {"all is there that it reads", all, 20}}, nil
}

// containers measures containers of the first image that can be had.
func (b *bench) containers(l line) error {
	lacks := b.engines
	for _, img := range b.images {
		if lacks == "" && img.lacks == "" && len(img.programs) > 0 {
			return errors.Join(b.outputs(l, img, img.programs[0]), b.trees(img))
		}
	}
	if lacks == "" {
		lacks = "no image can be had"
	}
	b.Add(figures.Figure{Name: containers, Unit: "s", Missing: lacks})
	return nil
}

// outputs measures the time from the beginning of a pull to the end of a program, in turns.
func (b *bench) outputs(l line, img *image, p program) error {
	states, err := b.states(img, p)
	if err != nil {
		return err
	}
	b.Note("%s: %s, %s compressed. Each time is that of `ctr image pull` and `ctr run` in a containerd with nothing in it; stargz and soci have images made for them, stargz's with the files first that %s reads", img.name, img.what, figures.Megabytes(img.size), p.what)
	b.meter.Slow(l.delay, l.mbps)
	defer b.meter.Slow(0, 0)
	times, moved := map[string][]time.Duration{}, map[string]int64{}
	measure := func(name string, s snapshotter, ref string) runner.Task {
		return runner.Task{Name: name, Run: func() error {
			b.meter.Forget()
			took, err := b.pullAndRun(s, ref, p)
			times[name] = append(times[name], took)
			_, moved[name] = b.meter.Traffic()
			b.Logf("%s, %s: %v, %d bytes", p.name, name, took, moved[name])
			return err
		}}
	}
	var tasks []runner.Task
	for _, s := range snapshotters {
		if img.peers[s.name].lacks == "" {
			tasks = append(tasks, measure(s.name, s, img.peers[s.name].ref))
		}
	}
	for _, st := range states {
		tasks = append(tasks, runner.Task{Name: st.name, Run: func() error {
			cache, err := b.copyOf(st.cache, "cache")
			if err != nil {
				return err
			}
			return errors.Join(measure(st.name, snapshotter{name: "imgfs", cache: cache}, img.now).Run(), os.RemoveAll(cache))
		}})
	}
	if _, err := b.InTurns(b.Runs, tasks); err != nil {
		return err
	}
	for i, st := range states {
		for j, s := range snapshotters {
			f := figures.Figure{Name: "from pull to the end of " + p.what + ", " + st.name, Unit: "s", Ours: figures.Median(times[st.name]).Seconds(),
				Peer: s.name, Theirs: figures.Median(times[s.name]).Seconds(), PeerMissing: img.peers[s.name].lacks, Note: "moved " + figures.Megabytes(moved[st.name]) + ", it " + figures.Megabytes(moved[s.name])}
			if img.peers[s.name].lacks != "" {
				f.Theirs = 0
			} else if j == 0 {
				f.AtLeast = st.faster
			} else if i > 0 { // these have had their images read, too
				f.AtLeast = 1
			}
			b.Add(f)
		}
	}
	return nil
}

// pullAndRun pulls an image and runs a program of it in a containerd of its own.
func (b *bench) pullAndRun(s snapshotter, ref string, p program) (took time.Duration, err error) {
	c, err := b.containerd(&s)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	pull, err := c.pull(ref)
	if err != nil {
		return 0, err
	}
	run, err := c.run(ref, p)
	return pull + run, err
}

// trees measures walking the files of a container, beside unpacked layers, and what the
// processes of a chain take afterwards.
func (b *bench) trees(img *image) (err error) {
	cache, err := b.copyOf(img.indexed, "cache")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(cache)) }()
	of := []*snapshotter{{name: "imgfs", cache: cache}, &snapshotters[0]}
	running := make([]*containerd, len(of))
	var tasks []runner.Task
	cold, warm := make([][]time.Duration, len(of)), make([][]time.Duration, len(of))
	for i, s := range of {
		c, err := b.containerd(s)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.stop()) }()
		running[i] = c
		dir := filepath.Join(c.dir, "tree")
		if err := c.show(img.now, dir); err != nil {
			return err
		}
		tasks = append(tasks, runner.Task{Name: s.name, Run: func() error {
			if err := b.dropCaches(); err != nil {
				return err
			}
			for _, to := range []*[]time.Duration{&cold[i], &warm[i]} {
				begun := time.Now()
				if err := runner.Walk(dir); err != nil {
					return err
				}
				*to = append(*to, time.Since(begun))
			}
			return nil
		}})
	}
	if _, err := b.InTurns(b.Runs, tasks); err != nil {
		return err
	}
	for _, f := range []struct {
		name  string
		times [][]time.Duration
		most  float64
	}{{"walking the files of a container, nothing of it in memory", cold, coldWalk}, {"walking the files of a container again", warm, warmWalk}} {
		b.Add(figures.Figure{Name: f.name, Unit: "s", Ours: figures.Median(f.times[0]).Seconds(), Peer: of[1].name, Theirs: figures.Median(f.times[1]).Seconds(), AtLeast: 1 / f.most})
	}
	return b.taken(running[0])
}

// taken adds what the snapshotter and the processes of its chain take.
func (b *bench) taken(c *containerd) error {
	var chain int64
	pids := b.Servers(filepath.Join(c.root(), "chains"))
	for _, pid := range pids {
		share, err := runner.ShareOf(pid)
		if err != nil {
			return err
		}
		chain += share.Proportional
	}
	own, err := runner.ShareOf(c.processes[0].PID)
	if err != nil {
		return err
	}
	if len(pids) == 0 {
		return errors.New("no process serves the chain")
	}
	b.Add(figures.Figure{Name: "memory of the chain afterwards", Unit: "MB", Ours: float64(chain) / 1e6, AtMost: figures.Most(chainMost), Note: fmt.Sprintf("PSS of %d processes", len(pids))},
		figures.Figure{Name: "memory of the snapshotter", Unit: "MB", Ours: float64(own.Proportional) / 1e6, AtMost: figures.Most(snapshotterMost),
			Note: fmt.Sprintf("PSS; without pages of its program %s", figures.Megabytes(own.Anonymous))})
	return nil
}

// show pulls an image and mounts what a container of it would have, with an upper directory.
func (c *containerd) show(ref, dir string) error {
	if err := os.Mkdir(dir, 0o777); err != nil {
		return err
	}
	if _, err := c.pull(ref); err != nil {
		return err
	}
	cmd := c.ctr("image", "mount", "--rw", "--snapshotter", c.snapshotter.name, ref, dir)
	_, err := c.b.Output(cmd[0], cmd[1:]...)
	return err
}
