package network

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/peers"
)

// maxPeak is how much memory a first mount may take.
const maxPeak = 150e6

// first measures mounting an image that imgfs has never seen, in turns with a
// plain download, over the line and without one, and its memory.
func (b *bench) first() error {
	images := []*image{b.node}
	if _, err := exec.LookPath("zstd"); err == nil {
		b.logf("packing the layers with zstd")
		packed, err := b.withZstd(b.node)
		if err != nil {
			return err
		}
		if err := b.push(packed); err != nil {
			return err
		}
		images = append(images, packed)
	} else {
		b.missing("zstd layers with windows of 128 MiB: memory at its peak", "zstd is not installed", maxPeak/1e6, "MB")
	}
	for _, img := range images {
		inflate, err := b.inflate(img)
		if err != nil {
			return err
		}
		b.slow()
		line := figures.Number(b.mbps, "Mbit/s")
		if err := b.firstMounts(img, b.far(img), line, inflate); err != nil {
			return err
		}
		// The proxy would take the processor that inflates.
		if err := b.firstMounts(img, b.near(img), "no bound, straight from the registry", inflate); err != nil {
			return err
		}
	}
	return nil
}

// firstMounts measures first mounts of an image from one place.
func (b *bench) firstMounts(img *image, from, line string, inflate []inflation) error {
	var download, ready []time.Duration
	var most int64
	for i := range b.runs {
		d, err := b.download(from, img)
		if err != nil {
			return err
		}
		download = append(download, d)
		b.proxy.forget()
		cache := filepath.Join(b.dir, fmt.Sprintf("first-%d", i))
		err = b.with(b.ctx, cache, from, nil, func(m *mount) error {
			ready = append(ready, m.ready)
			n, err := peak(m.pid)
			most = max(most, n)
			return err
		})
		if err != nil {
			return err
		}
		b.traced("first mount, " + line)
		if err := os.RemoveAll(cache); err != nil {
			return err
		}
	}
	codec := "gzip"
	if img != b.node {
		codec = "zstd"
	}
	name := fmt.Sprintf("%s, %s: ", codec, line)
	for _, in := range inflate {
		b.want(name+"ready, against "+in.by, median(ready).Seconds(), 1.15*max(median(download), in.took).Seconds(), "s",
			fmt.Sprintf("1.15 × the greater of download %.2f s and inflating on %d cores %.2f s", median(download).Seconds(), runtime.NumCPU(), in.took.Seconds()))
	}
	b.want(name+"memory at its peak", float64(most)/1e6, maxPeak/1e6, "MB", "VmHWM of the process that serves")
	return nil
}

// An inflation is how long decoding an image takes with some decoder.
type inflation struct {
	by   string
	took time.Duration
}

// inflate measures decoding all layers of an image to nowhere, as many at a
// time as there are cores, big ones first.
func (b *bench) inflate(img *image) ([]inflation, error) {
	decoders := []peers.Decoder{peers.Zstd}
	if img == b.node {
		decoders = []peers.Decoder{peers.Klauspost, peers.Isal}
	}
	layers := slices.SortedFunc(slices.Values(img.Manifest.Layers), func(a, b ocispec.Descriptor) int { return cmp.Compare(b.Size, a.Size) })
	var all []inflation
	for _, d := range decoders {
		if d.Missing() != "" {
			continue
		}
		var took []time.Duration
		for range b.runs {
			begun := time.Now()
			err := eachLayer(b.ctx, runtime.NumCPU(), layers, func(ctx context.Context, l ocispec.Descriptor) error {
				return d.Decode(ctx, img.Blob(l.Digest), io.Discard)
			})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", d.Name, err)
			}
			took = append(took, time.Since(begun))
		}
		all = append(all, inflation{d.Name, median(took)})
	}
	return all, nil
}
