package network

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
)

// cold measures reading from an image of which only the indexes are there.
func (b *bench) cold() error {
	cache, err := b.indexed("cold", b.node)
	if err != nil {
		return err
	}
	indexes, err := b.diskUsage(filepath.Join(cache, "indexes"))
	if err != nil {
		return err
	}
	var all []file
	b.fast()
	err = b.With(cache, b.node.far, nil, func(m *runner.Mount) (err error) {
		all, err = b.files(m)
		return err
	})
	b.slow()
	if err != nil {
		return err
	}
	big, err := nearest(all, 30_000_000)
	if err != nil {
		return err
	}
	packed, err := compressedSize(b.node.Image, big.name)
	if err != nil {
		return err
	}
	if err := b.mountReady(cache); err != nil {
		return err
	}
	release, err := b.coldRuns(cache, "cat", func(m *runner.Mount) (time.Duration, error) {
		return b.piped("cat", m.Dir+"/etc/os-release")
	})
	if err != nil {
		return err
	}
	b.want("`cat DIR/etc/os-release`: bytes", float64(slices.Max(each(release, moved)))/1e3, 400, "kB", fmt.Sprintf("in %v", milliseconds(release)))
	b.want("`cat DIR/etc/os-release`: requests for blobs", float64(slices.Max(each(release, requests))), 3, "", "")
	sum, err := b.coldRuns(cache, "sha256sum", func(m *runner.Mount) (time.Duration, error) {
		return b.piped("sha256sum", m.Dir+"/"+big.name)
	})
	if err != nil {
		return err
	}
	b.want("`sha256sum` of one big file: bytes", float64(slices.Max(each(sum, moved)))/1e6, (float64(packed)*1.1+1<<20)/1e6, "MB",
		fmt.Sprintf("%s of %s, %s compressed; %d requests, %v", filepath.Base(big.name), figures.Megabytes(big.size), figures.Megabytes(packed), figures.Median(each(sum, requests)), milliseconds(sum)))
	find, err := b.coldRuns(cache, "find", func(m *runner.Mount) (time.Duration, error) {
		return b.piped("find", m.Dir, "-ls")
	})
	if err != nil {
		return err
	}
	b.want("`find DIR -ls`: bytes", float64(slices.Max(each(find, moved))), 0, "B", milliseconds(find))
	return b.smallReads(cache, smallOnes(all, b.reads), indexes)
}

func (b *bench) coldRuns(cache, what string, do func(m *runner.Mount) (time.Duration, error)) ([]use, error) {
	return runs(b.Runs, func() (use, error) { return b.coldly(cache, what, b.node, nil, do) })
}

// mountReady measures how long mounting takes besides asking for token and
// manifest, and what it moves.
func (b *bench) mountReady(cache string) error {
	var ready, allowed []time.Duration
	var bytes []int64
	var asked int64
	for range max(b.Runs, 5) {
		if err := ForgetBlobs(cache); err != nil {
			return err
		}
		b.proxy.forget()
		err := b.With(cache, b.node.far, nil, func(m *runner.Mount) error {
			ready = append(ready, m.Ready)
			return nil
		})
		if err != nil {
			return err
		}
		seen, err := b.proxy.settled(b.Ctx)
		if err != nil {
			return err
		}
		b.traced("mount")
		asked = seen.all(tokens, manifests).Requests
		allowed = append(allowed, 300*time.Millisecond+time.Duration(asked)*b.Delay)
		bytes = append(bytes, seen.all(blobs).Bytes)
	}
	b.want("`imgfs mount`: until it is ready", float64(figures.Median(ready).Milliseconds()), float64(figures.Median(allowed).Milliseconds()), "ms",
		fmt.Sprintf("300 ms and %d round trips for token and manifest", asked))
	b.want("`imgfs mount`: bytes of blobs", float64(slices.Max(bytes)), 0, "B", "")
	return nil
}

// smallReads measures reading small files from all over the image.
func (b *bench) smallReads(cache string, some []file, indexes int64) error {
	reads, err := b.coldRuns(cache, "small files", func(m *runner.Mount) (time.Duration, error) {
		r, err := b.read(m, some, 0)
		return r.Took, err
	})
	if err != nil {
		return err
	}
	var size int64
	for _, f := range some {
		size += f.size
	}
	name := fmt.Sprintf("%d random files of at most 16 KiB", len(some))
	b.add(name+": bytes", float64(figures.Median(each(reads, moved)))/1e6, "MB", "the files have "+figures.Megabytes(size))
	b.add(name+": requests for blobs", float64(figures.Median(each(reads, requests))), "", "")
	b.add(name+": time, one after the other", figures.Median(each(reads, took)).Seconds(), "s", "")
	b.add("the indexes on disk", float64(indexes)/1e6, "MB", "")
	return nil
}

// milliseconds returns the median duration of some runs.
func milliseconds(all []use) string {
	d := figures.Median(each(all, took))
	return figures.Number(math.Round(float64(d.Microseconds())/10)/100, "ms")
}
