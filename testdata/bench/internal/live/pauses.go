package live

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
)

// readers read at the same time.
const readers = 4

// pauses measures how long nothing is answered while processes come and go.
func (b *bench) pauses() error {
	b.Note("the longest time without an answer to statfs, each time, while %d readers read all files", readers)
	for _, c := range []struct {
		name string
		most float64
		do   func(m *runner.Mount) error
	}{
		{"the server is killed", pauseMost, func(m *runner.Mount) error { return syscall.Kill(m.PID, syscall.SIGKILL) }},
		{"the holder is killed", pauseMost, func(m *runner.Mount) error { return syscall.Kill(m.Holds, syscall.SIGKILL) }},
		{"the program is replaced", upgradeMost, func(m *runner.Mount) error {
			_, err := b.Output(b.Imgfs, "upgrade", "--force", m.Dir) // it is the same program
			return err
		}},
	} {
		var worst []time.Duration
		err := b.With(b.cache, b.image(), nil, func(m *runner.Mount) (err error) {
			worst, err = b.pausesOf(m, c.do)
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		slices.Sort(worst)
		b.Add(figures.Figure{Name: c.name + ": pause, median", Unit: "ms", Ours: ms(worst[len(worst)/2]), AtMost: figures.Most(min(pauseMedian, c.most))},
			figures.Figure{Name: c.name + ": longest pause", Unit: "ms", Ours: ms(worst[len(worst)-1]), AtMost: figures.Most(c.most)})
	}
	return nil
}

// changeLimit is how long another process may take to be in the place of one.
const changeLimit = 30 * time.Second

// pausesOf does something to a mount's processes again and again, and returns the longest
// pause of each time.
func (b *bench) pausesOf(m *runner.Mount, do func(m *runner.Mount) error) (worst []time.Duration, err error) {
	p := &prober{dir: m.Dir}
	p.begin()
	defer func() { err = errors.Join(err, p.end()) }()
	for range max(b.Runs, 3) {
		if err := b.whole(m); err != nil {
			return nil, err
		}
		time.Sleep(time.Duration(rand.Int64N(int64(200 * time.Millisecond))))
		p.longest.Store(0)
		before := *m
		if err := do(m); err != nil {
			return nil, err
		}
		// One that was killed may be there for a moment.
		for end := time.Now().Add(changeLimit); m.PID == before.PID && m.Holds == before.Holds; {
			if time.Now().After(end) {
				return nil, fmt.Errorf("processes %d and %d of %s are still there", m.PID, m.Holds, m.Dir)
			}
			if err := b.whole(m); err != nil {
				return nil, err
			}
		}
		p.answer(b.Ctx)
		worst = append(worst, time.Duration(p.longest.Load()))
	}
	return worst, nil
}

// whole waits until a mount has both processes.
func (b *bench) whole(m *runner.Mount) error {
	const limit = 30 * time.Second
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		err := b.Processes(m)
		if err == nil && m.Holds != 0 {
			return nil
		}
		if time.Now().After(end) || b.Ctx.Err() != nil {
			return errors.Join(err, b.Ctx.Err(), fmt.Errorf("after %v nobody serves or holds %s", limit, m.Dir))
		}
	}
}

// A prober reads a mount and notes the longest time without an answer.
type prober struct {
	dir     string
	longest atomic.Int64
	asked   atomic.Int64 // when what was answered last was asked, in ns since 1970
	stop    atomic.Bool
	group   sync.WaitGroup
	mu      sync.Mutex
	err     error
}

func (p *prober) begin() {
	p.group.Go(p.probe)
	for i := range readers {
		p.group.Go(func() { p.fail(p.read(i)) })
	}
}

// end stops it, and returns what failed.
func (p *prober) end() error {
	p.stop.Store(true)
	p.group.Wait()
	return p.err
}

func (p *prober) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = errors.Join(p.err, err)
}

// answer waits until something that is asked from now on is answered.
func (p *prober) answer(ctx context.Context) {
	const limit = 30 * time.Second
	now := time.Now()
	for p.asked.Load() < now.UnixNano() && time.Since(now) < limit && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
}

// probe asks what the kernel does not know by itself.
func (p *prober) probe() {
	last := time.Now()
	for !p.stop.Load() {
		var st unix.Statfs_t
		asked := time.Now().UnixNano()
		if err := unix.Statfs(p.dir, &st); err != nil && !errors.Is(err, unix.EINTR) {
			p.fail(fmt.Errorf("statfs: %w", err))
			return
		}
		now := time.Now()
		p.longest.Store(max(p.longest.Load(), int64(now.Sub(last))))
		last = now
		p.asked.Store(asked)
		time.Sleep(time.Millisecond)
	}
}

// read reads files, beginning with another one than other readers, past the page cache.
func (p *prober) read(nth int) error {
	for n := 0; !p.stop.Load(); n++ {
		err := filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
			if p.stop.Load() {
				return fs.SkipAll
			}
			if err != nil || !d.Type().IsRegular() || rand.IntN(readers) != nth {
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			if err := runner.DropPages(f); err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, f)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
