package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// whole measures reading everything in the image, and in one whose layers hide
// nothing of each other: of node half is deleted again by later layers.
func (b *bench) whole() error {
	if err := b.readWhole(b.node); err != nil || b.corpora == "" {
		return err
	}
	base, err := openImage("lab/base:latest", "base of the lab", filepath.Join(b.corpora, "built", "base"))
	if err != nil {
		return err
	}
	if err := b.push(base); err != nil {
		return err
	}
	return b.readWhole(base)
}

// readWhole reads all that is in an image, in turns with a plain download of
// its blobs over the same line.
func (b *bench) readWhole(img *image) error {
	b.fast()
	cache, err := b.indexed("whole", b.far(img))
	if err != nil {
		return err
	}
	b.slow()
	var download, took []time.Duration
	var moved, requests []int64
	for range b.runs {
		d, err := b.download(b.far(img), img)
		if err != nil {
			return err
		}
		download = append(download, d)
		if err := forgetBlobs(cache); err != nil {
			return err
		}
		err = b.with(b.ctx, cache, b.far(img), nil, func(m *mount) error {
			b.proxy.forget()
			d, err := b.discard(b.ctx, "tar", "cf", "-", "-C", m.dir, ".")
			took = append(took, d)
			return err
		})
		if err != nil {
			return err
		}
		seen, err := b.proxy.settled(b.ctx)
		if err != nil {
			return err
		}
		b.traced("tar of " + img.name)
		moved, requests = append(moved, seen.all(blobs).Bytes), append(requests, seen.all(blobs).Requests)
	}
	name, bytes, seconds, plain := img.what+": `tar cf - -C DIR .` into a pipe: ", float64(median(moved)), median(took).Seconds(), median(download).Seconds()
	b.want(name+"bytes", bytes/1e6, 1.02*float64(img.Size())/1e6, "MB",
		fmt.Sprintf("%.3f × the blobs; %d requests", bytes/float64(img.Size()), median(requests)))
	b.want(name+"time", seconds, 1.15*plain, "s",
		fmt.Sprintf("%.2f × the download's %.2f s; line in use %.0f %%", seconds/plain, plain, 100*bytes/b.bandwidth()/seconds))
	return nil
}

// downloads is how many blobs are fetched at a time, as skopeo does.
const downloads = 4

// download fetches all layers of an image, named as imgfs would be told, keeps
// nothing, and returns how long that takes.
func (b *bench) download(from string, img *image) (time.Duration, error) {
	host, repository, _ := strings.Cut(strings.TrimSuffix(from, ":latest"), "/")
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	begun := time.Now()
	err := eachLayer(b.ctx, downloads, img.Manifest.Layers, func(ctx context.Context, l ocispec.Descriptor) error {
		return fetch(ctx, client, "http://"+host+"/v2/"+repository+"/blobs/"+l.Digest.String(), l.Size)
	})
	return time.Since(begun), err
}

// fetch downloads something of which the size is known.
func fetch(ctx context.Context, client *http.Client, url string, size int64) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+theToken)
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || n != size) {
		err = fmt.Errorf("%s: %s and %d bytes, want %d", url, resp.Status, n, size)
	}
	return err
}

// eachLayer does something with every layer, in their order, several at a
// time. The first error ends it.
func eachLayer(ctx context.Context, atOnce int, layers []ocispec.Descriptor, do func(context.Context, ocispec.Descriptor) error) error {
	todo := make(chan ocispec.Descriptor, len(layers))
	for _, l := range layers {
		todo <- l
	}
	close(todo)
	return eachOf(ctx, atOnce, todo, do)
}

// eachOf does something with all that a closed channel has, several at a time.
// The first error ends it.
func eachOf[T any](ctx context.Context, atOnce int, todo <-chan T, do func(context.Context, T) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan error, atOnce)
	for range atOnce {
		go func() {
			for v := range todo {
				if err := do(ctx, v); err != nil {
					cancel()
					results <- err
					return
				}
			}
			results <- nil
		}()
	}
	var all []error
	for range atOnce {
		all = append(all, <-results)
	}
	return errors.Join(all...)
}
