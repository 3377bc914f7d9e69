// Package network measures what imgfs moves over a network and how long it
// takes: it puts a proxy with a round trip and a bandwidth before a registry,
// and drives imgfs.
package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/foreign"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// Options are the settings of this group alone.
type Options struct {
	Delay time.Duration // round trip that each request takes
	Mbps  float64       // bandwidth of the line in megabits a second
	Trace io.Writer     // gets a line for each request; nil for none
}

// A bench is one run of the group.
type bench struct {
	*runner.Runner
	settings
	proxy *proxy
	node  *image
}

// settings are smaller in tests.
type settings struct {
	Options
	others *foreign.Maker
	reads  int // small files that are read
	// pause is the time between two reads beside a prefetch.
	pause time.Duration
	// The images that go through the cache with a budget.
	images    int
	imageSize int64 // of the smallest one; the biggest is twice as big
	cacheSize int64
}

// New returns the group.
func New(r *runner.Runner, opts Options) runner.Group {
	return newGroup(r, settings{Options: opts, others: foreign.New(r), reads: 100, pause: 100 * time.Millisecond, images: 20, imageSize: 30 << 20, cacheSize: 200e6})
}

func newGroup(r *runner.Runner, s settings) runner.Group {
	b := &bench{Runner: r, settings: s}
	return runner.Group{
		Name: "net", Title: "Mounts through a slow line", Runs: 3, Flags: fmt.Sprintf(" -rtt %v -mbps %g", s.Delay, s.Mbps), Prepare: b.prepare,
		Sections: []runner.Section{
			{Name: "cold", Title: "Indexes there, none of the image's bytes", Run: b.cold},
			{Name: "whole", Title: "Reading the whole tree", Run: b.whole},
			{Name: "first", Title: "The first mount, nothing there", Run: b.first},
			{Name: "foreign", Title: "The first mount, an index there that somebody else made", Run: b.foreign},
			{Name: "budget", Title: "Images through a cache with a budget", Run: b.budget},
			{Name: "stats", Title: "What imgfs stats says, and what the proxy saw", Run: b.stats},
			{Name: "latency", Title: "Cold reads of small files beside --prefetch", Run: b.latency},
		},
	}
}

// prepare starts registry and proxy, and puts the image into the registry.
func (b *bench) prepare() error {
	registry, err := b.Registry()
	if err != nil {
		return err
	}
	if b.proxy, err = newProxy(registry); err != nil {
		return err
	}
	b.AtEnd(b.proxy.close)
	b.Logf("filling the registry")
	node, what, err := b.Node(b.Dir)
	if err != nil {
		return err
	}
	if b.node, err = b.push(node, "node:latest", what); err != nil {
		return err
	}
	b.Group.Notes = append(b.Group.Notes,
		fmt.Sprintf("line: %v a round trip, %s", b.Delay, figures.Number(b.Mbps, "Mbit/s")),
		fmt.Sprintf("image: %s, %d layers, %s compressed", what, len(node.Manifest.Layers), figures.Megabytes(node.Size())))
	return nil
}

// An image is one in the registry.
type image struct {
	*labimage.Image
	what      string // for the report
	name      string // in the registry, with its tag
	near, far string // in the registry itself, and by way of the proxy
}

// push copies an image into the registry, past the proxy.
func (b *bench) push(img *labimage.Image, name, what string) (*image, error) {
	near, err := b.Push(img, name)
	return &image{img, what, name, near, b.proxy.host + "/" + name}, err
}

// slow gives the line its delay and bound; fast takes both away.
func (b *bench) slow() { b.proxy.set(b.Delay, b.bandwidth()) }

func (b *bench) fast() { b.proxy.set(0, 0) }

// bandwidth is in bytes a second.
func (b *bench) bandwidth() float64 { return b.Mbps * 1e6 / 8 }

// traced writes the requests of the proxy since forget to the trace.
func (b *bench) traced(what string) {
	if b.Trace == nil {
		return
	}
	b.proxy.write(b.Trace, b.Now.Title+": "+what)
}

// add puts a row without a wish into the table.
func (b *bench) add(name string, value float64, unit, note string) {
	b.Add(figures.Figure{Name: name, Unit: unit, Ours: value, Note: note})
}

// want puts a row with an upper bound into the table.
func (b *bench) want(name string, value, most float64, unit, note string) {
	b.Add(figures.Figure{Name: name, Unit: unit, Ours: value, AtMost: &most, Note: note})
}

// indexed makes the indexes of an image in a new cache directory, over a fast
// line, and has a slow one from then on.
func (b *bench) indexed(name string, img *image) (string, error) {
	b.fast()
	cache := filepath.Join(b.Dir, name)
	_, err := b.Output(b.Imgfs, "index", "--quiet", "--cache-dir", cache, img.far)
	b.slow()
	return cache, err
}

// ForgetBlobs takes all content out of a cache directory, and what mounts have noted of
// their reads, by which the next one would fetch, and leaves the indexes.
func ForgetBlobs(cache string) error {
	return errors.Join(os.RemoveAll(filepath.Join(cache, "blobs")), os.RemoveAll(filepath.Join(cache, "profiles")))
}

// piped runs a program whose output goes through a pipe: tar does not read files
// whose content would go to /dev/null.
func (b *bench) piped(name string, args ...string) (time.Duration, error) {
	cmd := b.Command(name, args...)
	cmd.Stdout = io.Discard
	begun := time.Now()
	err := b.Finish(cmd)
	return time.Since(begun), err
}

// A use is the traffic and the duration of one measurement.
type use struct {
	moved, requests int64 // bytes of blobs, and requests for them
	took            time.Duration
}

// coldly mounts an image with an empty cache of blobs and calls do. It returns the
// traffic on the line from the moment that the mount was ready until its end.
func (b *bench) coldly(cache, what string, img *image, flags []string, do func(m *runner.Mount) (time.Duration, error)) (use, error) {
	var u use
	if err := ForgetBlobs(cache); err != nil {
		return u, err
	}
	err := b.With(cache, img.far, flags, func(m *runner.Mount) (err error) {
		b.proxy.forget()
		u.took, err = do(m)
		return err
	})
	if err != nil {
		return u, err
	}
	seen, err := b.proxy.settled(b.Ctx)
	b.traced(what)
	u.moved, u.requests = seen.all(blobs).Bytes, seen.all(blobs).Requests
	return u, err
}

// runs does something as often as was asked for.
func runs[T any](n int, do func() (T, error)) ([]T, error) {
	var all []T
	for range n {
		v, err := do()
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// each returns a part of all uses.
func each[S, V any](all []S, of func(S) V) []V {
	values := make([]V, len(all))
	for i, u := range all {
		values[i] = of(u)
	}
	return values
}

func moved(u use) int64        { return u.moved }
func requests(u use) int64     { return u.requests }
func took(u use) time.Duration { return u.took }

// eachOf does something with all that a slice has, in its order, several at a
// time. The first error ends it.
func eachOf[T any](ctx context.Context, atOnce int, all []T, do func(context.Context, T) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	todo := make(chan T, len(all))
	for _, v := range all {
		todo <- v
	}
	close(todo)
	results := make(chan error, atOnce)
	for range atOnce {
		go func() {
			for v := range todo {
				err := ctx.Err()
				if err == nil {
					err = do(ctx, v)
				}
				if err != nil {
					cancel()
					results <- err
					return
				}
			}
			results <- nil
		}()
	}
	var errs []error
	for range atOnce {
		errs = append(errs, <-results)
	}
	return errors.Join(errs...)
}
