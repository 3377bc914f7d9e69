// Package anyarchive reads an image from an archive of which it is not known before
// whether docker save wrote it or it has an OCI image layout: what comes on standard
// input.
package anyarchive

import (
	"context"
	"fmt"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/dockerarchive"
	"github.com/imgfs/imgfs/remote/internal/kindof"
	"github.com/imgfs/imgfs/remote/ocilayout"
)

// A Source is an image of an archive. It is safe for concurrent use, and to be closed.
type Source interface {
	remote.Source
	io.Closer
}

// Open opens the archive of a location, as ocilayout.OpenArchive does if it has an
// index.json, and else as dockerarchive.Open does. docker 25 and later write both.
// loc.Image is what either knows of. nil opts are the defaults.
func Open(ctx context.Context, loc remote.Location, opts *remote.ArchiveOptions) (Source, error) {
	if opts == nil {
		opts = &remote.ArchiveOptions{}
	}
	a, err := kindof.Open(ctx, loc, opts)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", loc, err)
	}
	if _, err := a.Member(ocispec.ImageIndexFile); err == nil {
		layout, err := ocilayout.OpenTar(a, loc)
		if err != nil {
			return nil, err
		}
		return layout, nil
	}
	saved, err := dockerarchive.OpenTar(ctx, a, loc, opts)
	if err != nil {
		return nil, err
	}
	return saved, nil
}
