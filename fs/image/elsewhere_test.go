package image_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/fs/image"
	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/sourcetest"
)

// A lyingSource has layers of which the first place that is asked has a byte
// wrong; the other one too, if both lie.
type lyingSource struct {
	remote.Source
	both bool
	// reads counts those of the first place and of the other.
	reads, elsewhere atomic.Int64
}

type lyingBlob struct {
	remote.Blob
	s *lyingSource
}

func (s *lyingSource) Blob(d ocispec.Descriptor) (remote.Blob, error) {
	b, err := s.Source.Blob(d)
	return lyingBlob{b, s}, err
}

func (b lyingBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	b.s.reads.Add(1)
	return b.lie(ctx, p, off)
}

func (b lyingBlob) lie(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := b.Blob.ReadAt(ctx, p, off)
	if at := b.Size() / 2; off <= at && at < off+int64(n) {
		p[at-off] ^= 1
	}
	return n, err
}

func (b lyingBlob) ReadElsewhere(ctx context.Context, p []byte, off int64) (int, error) {
	b.s.elsewhere.Add(1)
	if b.s.both {
		return b.lie(ctx, p, off)
	}
	return b.Blob.ReadAt(ctx, p, off)
}

// TestNewElsewhere: a layer that comes with another digest is read once more
// from another place, and only once.
func TestNewElsewhere(t *testing.T) {
	for name, both := range map[string]bool{"one place lies": false, "both places lie": true} {
		t.Run(name, func(t *testing.T) {
			l := gzipLayer(t, "a", random(1, 600_000))
			store := sourcetest.NewStore()
			src := &lyingSource{Source: store.Source("test", store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{l}})), both: both}
			img, err := remote.Open(t.Context(), src, "")
			if err != nil {
				t.Fatal(err)
			}
			o := &opened{t: t, store: store, dir: t.TempDir()}
			disk, err := cache.Open(o.dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer disk.Close()
			warned := 0
			tree, err := image.New(t.Context(), img, &image.Options{Cache: disk, Warnf: func(string, ...any) { warned++ }})
			if both {
				if !errors.Is(err, layerindex.ErrDigest) {
					t.Fatalf("got error %v, want %v", err, layerindex.ErrDigest)
				}
				if warned != 0 {
					t.Errorf("%d warnings besides the error", warned)
				}
				if n := len(o.files()); n != 0 {
					t.Errorf("the cache has %q", o.files())
				}
			} else {
				if err != nil {
					t.Fatal(err)
				}
				defer tree.Close()
				if warned != 1 {
					t.Errorf("%d warnings, want 1", warned)
				}
				o.has(tree, "a", random(1, 600_000))
			}
			if first, other := src.reads.Load(), src.elsewhere.Load(); first != 1 || other != 2 {
				t.Errorf("read %d times at the first place and %d elsewhere; want 1 and 2, of which one for the last byte", first, other)
			}
		})
	}
}
