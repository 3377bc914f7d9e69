package starts

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
)

// A start is one start of a program.
type start struct {
	took     time.Duration // from the beginning of imgfs mount to the program's end
	program  time.Duration // of that the program's own
	again    time.Duration // of the program, a second time in the same mount
	requests int64         // for blobs, until the program's end
	moved    int64         // bytes of blobs, until then
	stats    runner.Stats  // at that time
}

// vain returns the bytes that were fetched because they were expected, and not used.
func (s *start) vain() int64 { return s.stats.Profile.Fetched - s.stats.Profile.Used }

// needed returns the bytes that were moved, but for those in vain.
func (s *start) needed() int64 { return s.moved - s.vain() }

// A result is what was measured of one program over one line.
type result struct {
	plain, known, warm []start         // without a profile, with one, and with all bytes in the cache
	disk, diskAgain    []time.Duration // on disk: with and without dropping pages
}

// starts measures all programs on a line.
func (b *bench) starts(l line) error {
	b.Note("indexes in the cache, no bytes; the profile was noted by one start in a mount of another tag")
	b.Note("times count from the beginning of `imgfs mount` to the end of the program; bytes and requests are those for blobs until then")
	if b.Pull {
		b.Note("peers begin with nothing: podman and overlayfs with all of the image, counted for each program; stargz and soci with images made for them, in a containerd that has just started; stargz's has the files first that the first program of each image reads, which it fetches at once")
	}
	for _, img := range b.images {
		if img.lacks == "" {
			b.Note("%s: %s, %s compressed; %s packed anew for the other tag", img.name, img.what, figures.Megabytes(img.size), img.repacked)
		}
		peers, err := b.peers(l, img)
		if err != nil {
			return fmt.Errorf("%s: %w", img.name, err)
		}
		for _, p := range img.programs {
			if img.lacks != "" {
				b.Add(figures.Figure{Name: p.what, Unit: "s", Missing: img.name + ": " + img.lacks})
				continue
			}
			r, err := b.measure(l, img, p)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			b.report(l, p, r, peers[p.name])
		}
	}
	return nil
}

// measure measures one program in turns.
func (b *bench) measure(l line, img *image, p program) (*result, error) {
	b.Logf("%s", p.name)
	noted, warm := filepath.Join(b.Dir, "noted-"+p.name), filepath.Join(b.Dir, "warm-"+p.name)
	defer os.RemoveAll(warm)
	if err := b.note(img, p, noted, warm); err != nil {
		return nil, err
	}
	b.meter.Slow(l.delay, l.mbps)
	defer b.meter.Slow(0, 0)
	r := &result{}
	fresh := func(from, what string, to *[]start, flags ...string) runner.Task {
		return runner.Task{Name: what, Run: func() error {
			cache, err := b.copyOf(from, "run-"+p.name)
			if err != nil {
				return err
			}
			s, err := b.start(cache, img.now, p, flags, false)
			if err != nil {
				return err
			}
			if b.Trace != nil {
				b.meter.Trace(b.Trace, fmt.Sprintf("%s: %s, %s: %v, program %v", b.Now.Name, p.name, what, s.took, s.program))
			}
			b.Logf("%s, %s: %v, %d requests, %d bytes, profile %+v, waits %d p99 %.3f", p.name, what, s.took, s.requests, s.moved, s.stats.Profile, s.stats.Total.Waits, s.stats.Total.WaitP99Seconds)
			*to = append(*to, s)
			return os.RemoveAll(cache)
		}}
	}
	_, err := b.InTurns(b.Runs, []runner.Task{
		fresh(img.indexed, "no profile", &r.plain, "--profile=off"),
		fresh(noted, "profile", &r.known),
		{Name: "warm", Run: func() error {
			s, err := b.start(warm, img.now, p, nil, true)
			b.Logf("%s, warm: %v, program %v, again %v", p.name, s.took, s.program, s.again)
			r.warm = append(r.warm, s)
			return err
		}},
		{Name: "disk", Run: func() error {
			if err := b.dropCaches(); err != nil {
				return err
			}
			for _, to := range []*[]time.Duration{&r.disk, &r.diskAgain} {
				took, err := b.run(img.tree, p)
				if err != nil {
					return err
				}
				*to = append(*to, took)
			}
			b.Logf("%s, disk: %v, again %v", p.name, r.disk[len(r.disk)-1], r.diskAgain[len(r.diskAgain)-1])
			return nil
		}},
	})
	return r, err
}

// note makes two cache directories over a fast line: one with the profile that a start in a
// mount of the old tag has left, and none of the bytes, and one with the bytes that a start
// in a mount of the new tag needs.
func (b *bench) note(img *image, p program, noted, warm string) error {
	b.meter.Slow(0, 0)
	for _, way := range []struct{ cache, image string }{{noted, img.old}, {warm, img.now}} {
		if err := os.RemoveAll(way.cache); err != nil { // of another line
			return err
		}
		if _, err := b.copyOf(img.indexed, filepath.Base(way.cache)); err != nil {
			return err
		}
		if _, err := b.start(way.cache, way.image, p, nil, false); err != nil {
			return err
		}
	}
	return forget(noted)
}

// start mounts an image and starts a program; if again is true with the pages dropped that the
// kernel has, and twice.
func (b *bench) start(cache, image string, p program, flags []string, again bool) (s start, err error) {
	b.meter.Forget()
	err = b.WithAtOnce(cache, image, flags, func(m *runner.Mount) (err error) {
		if again {
			if err := b.dropCaches(); err != nil {
				return err
			}
		}
		if s.program, err = b.run(m.Dir, p); err != nil {
			return err
		}
		s.took = m.Ready + s.program
		s.requests, s.moved = b.meter.Traffic()
		if again {
			if s.again, err = b.run(m.Dir, p); err != nil {
				return err
			}
		}
		s.stats, err = b.StatsOf(m.Dir)
		return err
	})
	return s, err
}
