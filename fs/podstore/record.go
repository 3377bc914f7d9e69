package podstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// An imageRecord is an entry of images.json (containers/storage, images.go, type Image).
type imageRecord struct {
	ID      string                   `json:"id"`
	Digest  digest.Digest            `json:"digest,omitempty"`
	Names   []string                 `json:"names,omitempty"`
	History []string                 `json:"names-history,omitempty"`
	Layer   string                   `json:"layer,omitempty"`
	Files   []string                 `json:"big-data-names,omitempty"`
	Sizes   map[string]int64         `json:"big-data-sizes,omitempty"`
	Digests map[string]digest.Digest `json:"big-data-digests,omitempty"`
	Created time.Time                `json:"created"`
	// Flags are free for anyone: what is ours there the library leaves alone.
	Flags flags `json:"flags"`
}

// flags are those of an image.
type flags struct {
	Ours ours `json:"imgfs"`
}

// ours is what imgfs has to know of an image besides.
type ours struct {
	Source string        `json:"source"`           // name by which it is mounted
	Config digest.Digest `json:"config"`           // whose content is a file of the image
	Inside string        `json:"inside,omitempty"` // directory in its root; "" for none
	Layers int           `json:"layers"`
	Size   int64         `json:"size"`
	Added  time.Time     `json:"added"`
}

// A layerRecord is an entry of layers.json (containers/storage, layers.go, type Layer).
type layerRecord struct {
	ID      string        `json:"id"`
	Parent  string        `json:"parent,omitempty"`
	Created time.Time     `json:"created"`
	Digest  digest.Digest `json:"diff-digest,omitempty"`
	Size    int64         `json:"diff-size,omitempty"`
}

// lists are those of a store, while it is locked.
type lists struct {
	images []imageRecord
	layers []layerRecord
}

// readList reads images.json or layers.json. There is nothing in one that is missing.
func readList[T any](path string) ([]T, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(text) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []T
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return all, nil
}

// writeList replaces images.json or layers.json.
func writeList[T any](ctx context.Context, path, lock string, all []T) error {
	if all == nil {
		all = []T{}
	}
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return locked(ctx, lock, func() error { return writeFile(path, text) })
}

// read reads the lists. Layers come before images: who adds one writes them in that order.
func (s *Store) read() (*lists, error) {
	images, err := readList[imageRecord](s.imagesFile())
	if err != nil {
		return nil, err
	}
	layers, err := readList[layerRecord](s.layersFile())
	return &lists{images, layers}, err
}

// writeImages and writeLayers never hold the locks of both lists: the library may take them
// in either order.
func (s *Store) writeImages(ctx context.Context, l *lists) error {
	return writeList(ctx, s.imagesFile(), s.path(imagesDir, "images.lock"), l.images)
}

func (s *Store) writeLayers(ctx context.Context, l *lists) error {
	return writeList(ctx, s.layersFile(), s.path(layersDir, "layers.lock"), l.layers)
}

// change calls f with the lists while no other process changes the store, after what was
// left half done has been mended.
func (s *Store) change(ctx context.Context, f func(*lists) error) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	l, err := s.read()
	if err != nil {
		return err
	}
	if err := s.mend(ctx, l); err != nil {
		return err
	}
	return f(l)
}

func hasLayer(layers []layerRecord, id string) bool {
	return slices.ContainsFunc(layers, func(l layerRecord) bool { return l.ID == id })
}
