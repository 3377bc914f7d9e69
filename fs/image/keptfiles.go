package image

import (
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/fs"
	"github.com/imgfs/imgfs/fs/image/internal/keptfile"
	"github.com/imgfs/imgfs/remote/cache"
	"github.com/imgfs/imgfs/remote/cache/files"
)

// A KeptFile is an open file of the cache with exactly the content of a regular
// file of the tree, checked against its SHA-256. Fd returns its descriptor, which
// is valid until Close. Close must be called once; it may be called after the
// image was closed, and what the kernel was given stays readable.
type KeptFile = keptfile.Held

// KeptStats are the counters of the files that an image keeps on disk.
type KeptStats = keptfile.Stats

// KeptFile returns the file on disk that has the content of a regular file, if
// there is one now and nobody has written to it since it was checked. If not, it
// notes that one was asked for, and may begin to make it for later. exec says
// that the file is opened to be executed. KeptFile does not wait for the network
// or for much of the disk.
func (i *Image) KeptFile(n fs.Node, exec bool) (*KeptFile, bool) {
	if i.kept == nil {
		return nil, false
	}
	return i.kept.Hold(n, exec)
}

// isKept reports whether the content of a regular file is on disk, whole.
func (i *Image) isKept(ctx context.Context, n fs.Node) bool {
	disk := i.Resolved().Cache()
	if i.kept == nil || !disk.Files.Any() {
		return false
	}
	l := &layerContent{i, i.layers.all[n.Layer()]}
	sum, ok, err := l.LargeFileDigest(ctx, n)
	return err == nil && ok && disk.Files.Has(sum, n.Attr().Size)
}

// KeptFileProbe returns an empty file without a name where kept files lie, to find
// out what the kernel does with them. It is an error, with the reason, if the image
// keeps none.
func (i *Image) KeptFileProbe() (*KeptFile, error) {
	if i.kept == nil {
		return nil, errors.New("no contents of files are kept on disk")
	}
	return i.kept.Probe()
}

// A keptDir is the keptfile.Dir that a cache is.
type keptDir struct{ cache *cache.Cache }

var _ keptfile.Dir = keptDir{}

type keptCacheFile struct{ *files.Kept }

func (x keptCacheFile) Fd() uintptr { return x.File().Fd() }

func asFile(x *files.Kept, err error) (keptfile.File, error) {
	if err != nil {
		return nil, err
	}
	return keptCacheFile{x}, nil
}

func (d keptDir) Any() bool { return d.cache.Files.Any() }

func (d keptDir) Has(sum digest.Digest, size int64) bool { return d.cache.Files.Has(sum, size) }

func (d keptDir) Open(ctx context.Context, sum digest.Digest, size int64) (keptfile.File, error) {
	return asFile(d.cache.Files.Open(ctx, sum, size))
}

func (d keptDir) OpenChecked(sum digest.Digest, size int64) (keptfile.File, error) {
	return asFile(d.cache.Files.OpenChecked(sum, size))
}

func (d keptDir) Store(ctx context.Context, sum digest.Digest, size int64, r io.Reader) (keptfile.File, error) {
	return asFile(d.cache.Files.Store(ctx, sum, size, r))
}

func (d keptDir) Probe() (keptfile.Descriptor, error) {
	f, err := d.cache.Files.Probe()
	if err != nil {
		return nil, err
	}
	return f, nil
}
