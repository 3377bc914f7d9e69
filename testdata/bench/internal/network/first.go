package network

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/bench/peers"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// maxPeak is how many MB of memory a first mount may take.
const maxPeak = 150

// first measures mounting an image that imgfs has never seen, in turns with a
// plain download, over the line and without one, and its memory.
func (b *bench) first() error {
	if err := b.firstBy("gzip", b.node, peers.Klauspost, peers.Isal); err != nil {
		return err
	}
	if why := peers.Zstd.Missing(); why != "" {
		b.Add(figures.Figure{Name: "zstd layers with windows of 128 MiB: memory at its peak", Unit: "MB", Missing: why, AtMost: figures.Most(maxPeak)})
		return nil
	}
	b.Logf("packing the layers with zstd")
	layout, err := b.node.Repack(filepath.Join(b.Dir, "zstd"), labimage.WideZstd(b.Ctx))
	if err != nil {
		return err
	}
	packed, err := b.push(layout, "zstd:latest", b.node.what+", with zstd layers")
	if err != nil {
		return err
	}
	return b.firstBy("zstd", packed, peers.Zstd)
}

// firstBy measures first mounts of an image that some decoders decode.
func (b *bench) firstBy(codec string, img *image, decoders ...peers.Decoder) error {
	inflate, err := b.inflate(img, decoders)
	if err != nil {
		return err
	}
	b.slow()
	if err := b.firstMounts(img, img.far, codec+", "+figures.Number(b.Mbps, "Mbit/s"), inflate); err != nil {
		return err
	}
	// The proxy would take the processor that inflates.
	return b.firstMounts(img, img.near, codec+", no bound, straight from the registry", inflate)
}

// firstMounts measures first mounts of an image from one place.
func (b *bench) firstMounts(img *image, from, what string, inflate []inflation) error {
	var plain, ready []time.Duration
	var most int64
	_, err := b.InTurns(b.Runs, []runner.Task{
		{Name: "download", Run: func() error {
			d, err := b.download(from, img)
			plain = append(plain, d)
			return err
		}},
		{Name: "mount", Run: func() error {
			b.proxy.forget()
			cache := filepath.Join(b.Dir, "first")
			err := b.With(cache, from, nil, func(m *runner.Mount) error {
				ready = append(ready, m.Ready)
				memory, err := runner.MemoryOf(m.PID)
				most = max(most, memory.Peak)
				return err
			})
			if err != nil {
				return err
			}
			b.traced("first mount, " + what)
			return os.RemoveAll(cache)
		}},
	})
	if err != nil {
		return err
	}
	download := figures.Median(plain)
	for _, in := range inflate {
		b.want(what+": ready, against "+in.by, figures.Median(ready).Seconds(), 1.15*max(download, in.took).Seconds(), "s",
			fmt.Sprintf("1.15 × the greater of download %.2f s and inflating on %d cores %.2f s", download.Seconds(), runtime.NumCPU(), in.took.Seconds()))
	}
	b.want(what+": memory at its peak", float64(most)/1e6, maxPeak, "MB", "VmHWM of the process that serves")
	return nil
}

// An inflation is how long decoding an image takes with some decoder.
type inflation struct {
	by   string
	took time.Duration
}

// inflate measures decoding all layers of an image to nowhere, as many at a
// time as there are cores, big ones first.
func (b *bench) inflate(img *image, decoders []peers.Decoder) ([]inflation, error) {
	layers := slices.SortedFunc(slices.Values(img.Manifest.Layers), func(a, b ocispec.Descriptor) int { return cmp.Compare(b.Size, a.Size) })
	var all []inflation
	for _, d := range decoders {
		if d.Missing() != "" {
			continue
		}
		each, err := runs(b.Runs, func() (time.Duration, error) {
			begun := time.Now()
			err := eachOf(b.Ctx, runtime.NumCPU(), layers, func(ctx context.Context, l ocispec.Descriptor) error {
				return d.Decode(ctx, img.Blob(l.Digest), io.Discard)
			})
			return time.Since(begun), err
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.Name, err)
		}
		all = append(all, inflation{d.Name, figures.Median(each)})
	}
	return all, nil
}
