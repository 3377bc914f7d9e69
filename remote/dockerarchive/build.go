package dockerarchive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/internal/tarball"
)

// The media types of a Docker schema 2 manifest.
const (
	mediaTypeManifest = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeConfig   = "application/vnd.docker.container.image.v1+json"
	mediaTypeLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// A manifest is a Docker schema 2 manifest with its members in the order in
// which skopeo writes them.
type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type descriptor struct {
	MediaType string        `json:"mediaType"`
	Size      int64         `json:"size"`
	Digest    digest.Digest `json:"digest"`
}

// build makes the manifest of img.
func (s *Source) build(ctx context.Context, img image) error {
	config, err := s.read(img.Config, maxConfigSize)
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	var c struct {
		RootFS struct {
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return fmt.Errorf("%w: config %q: %w", remote.ErrUnsupported, img.Config, err)
	}
	diffIDs := c.RootFS.DiffIDs
	if len(diffIDs) != len(img.Layers) {
		return fmt.Errorf("%w: manifest.json lists %d layers, config %q has %d diff_ids", remote.ErrUnsupported, len(img.Layers), img.Config, len(diffIDs))
	}
	for i, d := range diffIDs {
		if err := d.Validate(); err != nil && !errors.Is(err, digest.ErrDigestUnsupported) {
			return fmt.Errorf("%w: config %q: diff_id %d: %.200q: %w", remote.ErrUnsupported, img.Config, i, d, err)
		}
	}
	sizes, err := s.measure(ctx, img.Layers, diffIDs)
	if err != nil {
		return err
	}
	m := manifest{SchemaVersion: 2, MediaType: mediaTypeManifest, Config: s.add(mediaTypeConfig, config), Layers: []descriptor{}}
	for _, d := range diffIDs {
		m.Layers = append(m.Layers, descriptor{MediaType: mediaTypeLayer, Size: sizes[d], Digest: d})
	}
	content, err := json.Marshal(m)
	if err != nil {
		return err
	}
	top := s.add(mediaTypeManifest, content)
	s.top = ocispec.Descriptor{MediaType: top.MediaType, Digest: top.Digest, Size: top.Size}
	return nil
}

// A measured is what is known of a layer's member.
type measured struct {
	size   int64               // of the layer's tar
	packed *ocispec.Descriptor // of the member, if it is compressed
}

// measure finds the layers' members and returns the size of each layer's
// tar. A diff_id that occurs again is the same layer again, and a member that
// does is read once.
func (s *Source) measure(ctx context.Context, names []string, diffIDs []digest.Digest) (map[digest.Digest]int64, error) {
	members := make(map[digest.Digest]*io.SectionReader)
	// A place is where the content of a member is; a sparse one is a place of its own.
	type place struct {
		in io.ReaderAt
		at int64
	}
	once := make(map[place]func() (measured, error))
	for i, d := range diffIDs {
		if members[d] != nil {
			continue
		}
		r, err := s.member(names[i])
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", d, err)
		}
		members[d] = r
	}
	var mu sync.Mutex
	sizes := make(map[digest.Digest]int64)
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(runtime.GOMAXPROCS(0))
	for d, r := range members {
		in, off, _ := r.Outer()
		at := place{in, off}
		if once[at] == nil {
			once[at] = sync.OnceValues(func() (measured, error) { return measureLayer(ctx, r, s.maxLayer) })
		}
		measure := once[at]
		work.Go(func() error {
			m, err := measure()
			if err != nil {
				return fmt.Errorf("layer %s: %w", d, err)
			}
			mu.Lock()
			defer mu.Unlock()
			sizes[d] = m.size
			if m.packed == nil {
				s.contents[d] = r
				return nil
			}
			s.packed[d] = *m.packed
			s.contents[m.packed.Digest] = r
			return nil
		})
	}
	return sizes, work.Wait()
}

// measureLayer returns the size of a layer's tar, at most limit, and, if the
// member is compressed, its own descriptor.
func measureLayer(ctx context.Context, member *io.SectionReader, limit int64) (measured, error) {
	hash := digest.Canonical.Digester()
	// The section is read from its start without moving it: it is a blob too.
	raw := io.TeeReader(io.NewSectionReader(member, 0, member.Size()), hash.Hash())
	tar, compressed, err := tarball.Decompress(ctx, raw)
	if err != nil {
		return measured{}, fmt.Errorf("%w: %w", remote.ErrUnsupported, err)
	}
	defer tar.Close()
	if !compressed {
		return measured{size: member.Size()}, nil
	}
	size, err := sizeOf(tar, limit)
	if ctx.Err() != nil {
		return measured{}, ctx.Err()
	}
	if err != nil {
		return measured{}, err
	}
	// Bytes that a decompressor leaves unread belong to the blob as well.
	if _, err := io.Copy(io.Discard, raw); err != nil {
		return measured{}, err
	}
	return measured{size, &ocispec.Descriptor{MediaType: mediaTypeLayer, Digest: hash.Digest(), Size: member.Size()}}, nil
}

// sizeOf reads a compressed layer's tar and returns its size, at most limit; 0
// is no limit.
func sizeOf(tar io.Reader, limit int64) (int64, error) {
	if limit == 0 {
		limit = math.MaxInt64 - 1
	}
	size, err := io.Copy(io.Discard, io.LimitReader(tar, limit+1))
	if err != nil {
		return 0, fmt.Errorf("%w: unpacking it: %w", remote.ErrDigest, err)
	}
	if size > limit {
		return 0, fmt.Errorf("%w: unpacked it has more than the %d bytes allowed", remote.ErrTooBig, limit)
	}
	return size, nil
}
