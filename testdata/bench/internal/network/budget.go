package network

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/labimage"
)

const (
	budgetProcesses = 2
	samplePeriod    = 100 * time.Millisecond
	chunkSize       = 64 << 10 // of the cache
)

// A filling is an image of made content, with the digests of its files.
type filling struct {
	*image
	sums map[string]string // by name
}

// budget reads more images than fit through a cache with a budget, two at a
// time, and looks at the directory meanwhile.
func (b *bench) budget() error {
	images, err := b.fillings()
	if err != nil {
		return err
	}
	var total int64
	for _, f := range images {
		total += f.Size()
	}
	cache := filepath.Join(b.Dir, "budget")
	if err := os.Mkdir(cache, 0o700); err != nil {
		return err
	}
	// du counts one file after the other: what is removed behind it, and written again
	// before it, counts twice. Of two runs one is right.
	end := sample(b.Ctx, func() int64 {
		first, err := b.diskUsage(cache)
		second, failed := b.diskUsage(cache)
		if err != nil || failed != nil { // a file has gone meanwhile
			return 0
		}
		return min(first, second)
	})
	begun := time.Now()
	err = eachOf(b.Ctx, budgetProcesses, images, func(_ context.Context, f *filling) error { return b.fillWith(cache, f) })
	most, samples := end()
	if err != nil {
		return err
	}
	took := time.Since(begun)
	after, err := b.diskUsage(cache)
	if err != nil {
		return err
	}
	b.want(fmt.Sprintf("%d images through `--cache-size %d`: du of the cache directory", b.images, b.cacheSize),
		float64(max(most, after))/1e6, float64(b.cacheSize+budgetProcesses*chunkSize)/1e6, "MB",
		fmt.Sprintf("the most of %d samples in %.1f s, %s at the end; %d processes at a time, %s of blobs in all; every file had the right SHA-256",
			samples, took.Seconds(), figures.Megabytes(after), budgetProcesses, figures.Megabytes(total)))
	return nil
}

// fillWith mounts an image, reads all of it, and checks what it reads.
func (b *bench) fillWith(cache string, f *filling) error {
	return b.With(cache, f.near, []string{"--cache-size", fmt.Sprint(b.cacheSize)}, func(m *runner.Mount) error {
		out, err := b.Output("find", m.Dir, "-type", "f", "-exec", "sha256sum", "{}", "+")
		if err != nil {
			return err
		}
		return f.check(out, m.Dir)
	})
}

// check compares the output of sha256sum on a mount with the files' digests.
func (f *filling) check(printed, dir string) error {
	n := 0
	for l := range strings.Lines(printed) {
		sum, path, _ := strings.Cut(strings.TrimSuffix(l, "\n"), "  ")
		if want := f.sums[strings.TrimPrefix(path, dir+"/")]; sum != want {
			return fmt.Errorf("%s: %s has SHA-256 %s, want %q", f.name, path, sum, want)
		}
		n++
	}
	if n != len(f.sums) {
		return fmt.Errorf("%s has %d files, want %d", f.name, n, len(f.sums))
	}
	return nil
}

// fillings makes the images and puts them into the registry.
func (b *bench) fillings() ([]*filling, error) {
	var all []*filling
	for i := range b.images {
		f := &filling{sums: map[string]string{}}
		layout := filepath.Join(b.Dir, "filling")
		if _, err := labimage.Write(layout, f.layer(uint64(2*i), b.sizeOf(i)/2), f.layer(uint64(2*i+1), b.sizeOf(i)/2)); err != nil {
			return nil, err
		}
		img, err := labimage.Open(layout)
		if err != nil {
			return nil, err
		}
		if f.image, err = b.push(img, fmt.Sprintf("filling%d:latest", i), ""); err != nil {
			return nil, err
		}
		if err := os.RemoveAll(layout); err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
}

// sizeOf returns how many bytes the blobs of image i have.
func (b *bench) sizeOf(i int) int64 {
	return b.imageSize + b.imageSize*int64(i)/int64(max(1, b.images-1))
}

// layer writes files of random content: half of the blob's bytes cannot be
// packed, half are of text that packs two to one. A seed gives one content.
func (f *filling) layer(seed uint64, size int64) labimage.Layer {
	return func(a *labimage.Archive) error {
		source := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
		r := rand.New(source)
		dir := fmt.Sprintf("layer%d", seed)
		if err := a.Dir(dir); err != nil {
			return err
		}
		for n := 0; size > 0; n++ {
			length := min(size, 1+r.Int64N(4<<20)) // as it will be in the blob
			size -= length
			var content io.Reader = source
			if n%2 == 1 {
				content = hexOf{source}
				length *= 2
			}
			name := fmt.Sprintf("%s/file%03d", dir, n)
			sum := sha256.New()
			if err := a.Copy(name, length, io.TeeReader(content, sum)); err != nil {
				return err
			}
			f.sums[name] = hex.EncodeToString(sum.Sum(nil))
		}
		return nil
	}
}

// A hexOf gives the bytes that it reads in hexadecimal.
type hexOf struct{ r io.Reader }

func (h hexOf) Read(p []byte) (int, error) {
	raw := make([]byte, (len(p)+1)/2)
	if _, err := io.ReadFull(h.r, raw); err != nil {
		return 0, err
	}
	return copy(p, hex.AppendEncode(nil, raw)), nil
}

// diskUsage returns what a directory and all below take on disk.
func (b *bench) diskUsage(dir string) (int64, error) {
	cmd := b.Command("du", "-s", "-B1", dir)
	out, err := cmd.Output()
	size, _, _ := strings.Cut(string(out), "\t")
	n, parseErr := strconv.ParseInt(size, 10, 64)
	return n, errors.Join(err, parseErr)
}

// sample looks at something again and again until end is called, which returns
// the most that it was.
func sample(ctx context.Context, look func() int64) (end func() (most int64, samples int)) {
	ctx, cancel := context.WithCancel(ctx)
	var most int64
	var samples int
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ; ctx.Err() == nil; _ = sleep(ctx, samplePeriod) {
			most, samples = max(most, look()), samples+1
		}
	}()
	return func() (int64, int) {
		cancel()
		<-done
		return most, samples
	}
}
