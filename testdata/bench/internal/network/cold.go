package network

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
)

// A coldRun is what the runs of one thing moved and took.
type coldRun struct {
	moved    []int64 // bytes
	requests []int64
	took     []time.Duration
}

// cold measures reading from an image of which only the indexes are there.
func (b *bench) cold() error {
	b.fast()
	cache, err := b.indexed("cold", b.far(b.node))
	if err != nil {
		return err
	}
	indexes, err := diskUsage(filepath.Join(cache, "indexes"))
	if err != nil {
		return err
	}
	var files []file
	err = b.with(b.ctx, cache, b.far(b.node), nil, func(m *mount) error {
		files, err = m.files()
		return err
	})
	if err != nil {
		return err
	}
	big, err := nearest(files, 30_000_000)
	if err != nil {
		return err
	}
	packed, err := b.node.compressedSize(big.name)
	if err != nil {
		return err
	}
	b.slow()
	if err := b.mountReady(cache); err != nil {
		return err
	}
	release, err := b.coldly(cache, "cat", func(m *mount) (time.Duration, error) {
		return b.discard(b.ctx, "cat", m.dir+"/etc/os-release")
	})
	if err != nil {
		return err
	}
	b.want("`cat DIR/etc/os-release`: bytes", float64(slices.Max(release.moved))/1e3, 400, "kB", fmt.Sprintf("in %v", milliseconds(median(release.took))))
	b.want("`cat DIR/etc/os-release`: requests for blobs", float64(slices.Max(release.requests)), 3, "", "")
	sum, err := b.coldly(cache, "sha256sum", func(m *mount) (time.Duration, error) {
		return b.discard(b.ctx, "sha256sum", m.dir+"/"+big.name)
	})
	if err != nil {
		return err
	}
	b.want("`sha256sum` of one big file: bytes", float64(slices.Max(sum.moved))/1e6, (float64(packed)*1.1+1<<20)/1e6, "MB",
		fmt.Sprintf("%s of %s, %s compressed; %d requests, %v", filepath.Base(big.name), megabytes(big.size), megabytes(packed), median(sum.requests), milliseconds(median(sum.took))))
	find, err := b.coldly(cache, "find", func(m *mount) (time.Duration, error) {
		return b.discard(b.ctx, "find", m.dir, "-ls")
	})
	if err != nil {
		return err
	}
	b.want("`find DIR -ls`: bytes", float64(slices.Max(find.moved)), 0, "B", fmt.Sprintf("%v", milliseconds(median(find.took))))
	return b.smallReads(cache, smallOnes(files, b.reads), indexes)
}

// coldly mounts the image with an empty cache of blobs, has something read,
// and says what went over the line from the mount's being ready until its end.
func (b *bench) coldly(cache, what string, do func(m *mount) (time.Duration, error)) (coldRun, error) {
	var r coldRun
	for range b.runs {
		if err := forgetBlobs(cache); err != nil {
			return r, err
		}
		err := b.with(b.ctx, cache, b.far(b.node), nil, func(m *mount) error {
			b.proxy.forget()
			took, err := do(m)
			r.took = append(r.took, took)
			return err
		})
		if err != nil {
			return r, err
		}
		seen, err := b.proxy.settled(b.ctx)
		if err != nil {
			return r, err
		}
		b.traced(what)
		r.moved = append(r.moved, seen.all(blobs).Bytes)
		r.requests = append(r.requests, seen.all(blobs).Requests)
	}
	return r, nil
}

// mountReady measures how long mounting takes besides asking for token and
// manifest, and what it moves.
func (b *bench) mountReady(cache string) error {
	var took, allowed []time.Duration
	var moved []int64
	var requests int64
	for range max(b.runs, 5) {
		if err := forgetBlobs(cache); err != nil {
			return err
		}
		b.proxy.forget()
		err := b.with(b.ctx, cache, b.far(b.node), nil, func(m *mount) error {
			took = append(took, m.ready)
			return nil
		})
		if err != nil {
			return err
		}
		seen, err := b.proxy.settled(b.ctx)
		if err != nil {
			return err
		}
		b.traced("mount")
		requests = seen.all(tokens, manifests).Requests
		allowed = append(allowed, 300*time.Millisecond+time.Duration(requests)*b.delay)
		moved = append(moved, seen.all(blobs).Bytes)
	}
	b.want("`imgfs mount`: until it is ready", float64(median(took).Milliseconds()), float64(median(allowed).Milliseconds()), "ms",
		fmt.Sprintf("300 ms and %d round trips for token and manifest", requests))
	b.want("`imgfs mount`: bytes of blobs", float64(slices.Max(moved)), 0, "B", "")
	return nil
}

// smallReads measures reading small files from all over the image.
func (b *bench) smallReads(cache string, files []file, indexes int64) error {
	reads, err := b.coldly(cache, "small files", func(m *mount) (time.Duration, error) {
		each, err := m.read(files, 0)
		var took time.Duration
		for _, d := range each {
			took += d
		}
		return took, err
	})
	if err != nil {
		return err
	}
	var size int64
	for _, f := range files {
		size += f.size
	}
	name := fmt.Sprintf("%d random files of at most 16 KiB", len(files))
	b.add(name+": bytes", float64(median(reads.moved))/1e6, "MB", "the files have "+megabytes(size))
	b.add(name+": requests for blobs", float64(median(reads.requests)), "", "")
	b.add(name+": time, one after the other", median(reads.took).Seconds(), "s", "")
	b.add("the indexes on disk", float64(indexes)/1e6, "MB", "")
	return nil
}

func milliseconds(d time.Duration) string {
	return figures.Number(math.Round(float64(d.Microseconds())/10)/100, "ms")
}
