package network

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/testdata/bench/figures"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/labimage"
)

// whole measures reading everything in the image, and in base, whose one layer
// hides nothing: later layers of node delete half of the earlier ones.
func (b *bench) whole() error {
	if err := b.readWhole(b.node); err != nil || b.Corpora == "" {
		return err
	}
	layout, err := labimage.Open(filepath.Join(b.Corpora, "built", "base"))
	if err != nil {
		return err
	}
	base, err := b.push(layout, "base:latest", "base of the lab")
	if err != nil {
		return err
	}
	return b.readWhole(base)
}

// readWhole reads all that is in an image, in turns with a plain download of
// its blobs over the same line.
func (b *bench) readWhole(img *image) error {
	cache, err := b.indexed("whole", img)
	if err != nil {
		return err
	}
	var uses []use
	var plain []time.Duration
	_, err = b.InTurns(b.Runs, []runner.Task{
		{Name: "download", Run: func() error {
			d, err := b.download(img.far, img)
			plain = append(plain, d)
			return err
		}},
		{Name: "tar", Run: func() error {
			u, err := b.coldly(cache, "tar of "+img.name, img, nil, func(m *runner.Mount) (time.Duration, error) {
				return b.piped("tar", "cf", "-", "-C", m.Dir, ".")
			})
			uses = append(uses, u)
			return err
		}},
	})
	if err != nil {
		return err
	}
	name, bytes := img.what+": `tar cf - -C DIR .` into a pipe: ", float64(figures.Median(each(uses, moved)))
	seconds, download := figures.Median(each(uses, took)).Seconds(), figures.Median(plain).Seconds()
	b.Add(
		figures.Figure{Name: name + "bytes", Unit: "MB", Ours: bytes / 1e6, Peer: "the blobs", Theirs: float64(img.Size()) / 1e6, AtLeast: 1 / 1.02,
			Note: fmt.Sprintf("%.3f × the blobs; %d requests", bytes/float64(img.Size()), figures.Median(each(uses, requests)))},
		figures.Figure{Name: name + "time", Unit: "s", Ours: seconds, Peer: "download", Theirs: download, AtLeast: 1 / 1.15,
			Note: fmt.Sprintf("line in use %.0f %%", 100*bytes/b.bandwidth()/seconds)})
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
	err := eachOf(b.Ctx, downloads, img.Manifest.Layers, func(ctx context.Context, l ocispec.Descriptor) error {
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
