package containersstorage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/beneath"
	"github.com/imgfs/imgfs/remote/internal/tarball"
)

// A layer is a layer of the image as a blob: its tar.
type layer struct {
	*layerRecord
	source *Source

	making chan struct{} // holds one value while the recipe is made or looked for
	recipe *recipe
}

var _ remote.LocalBlob = (*layer)(nil)

// maxTar is the largest tar of a layer.
const maxTar = 1 << 60

// check tells whether the layer can be read where it is. It opens no file of it.
func (l *layer) check() error {
	dir, err := l.store.dir(l.ID)
	if err != nil {
		return err
	}
	if err := l.DiffDigest.Validate(); err != nil {
		what := "the store does not say the digest of its tar"
		if l.TOCDigest != "" {
			what = "only parts of it were pulled (zstd:chunked), and " + what
		}
		return fmt.Errorf("%w: %s", remote.ErrUnsupported, what)
	}
	if l.DiffSize < 0 || l.DiffSize >= maxTar {
		return fmt.Errorf("%w: its tar is said to have %d bytes", remote.ErrUnsupported, l.DiffSize)
	}
	if l.store.driver == "overlay" && l.store.files.Exists(l.ID+"/composefs-data") {
		return fmt.Errorf("%w: it is stored for composefs, without the names of its files", remote.ErrUnsupported)
	}
	st, err := l.store.files.Stat(dir)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = fmt.Errorf("%w: %s is not a directory", remote.ErrUnsupported, l.store.files.Path(dir))
	}
	return err
}

// Digest implements remote.Blob: diff_id.
func (l *layer) Digest() digest.Digest { return l.DiffDigest }

// Size implements remote.Blob.
func (l *layer) Size() int64 { return l.DiffSize }

// Local implements remote.LocalBlob.
func (l *layer) Local() bool { return true }

// ReadAt implements remote.Blob.
func (l *layer) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, l.fail(fmt.Errorf("negative offset %d", off))
	}
	if off >= l.DiffSize {
		return 0, io.EOF
	}
	r, err := l.made(ctx)
	if err != nil {
		return 0, l.fail(err)
	}
	want := p[:min(int64(len(p)), l.DiffSize-off)]
	if err := r.readAt(ctx, &l.source.shelf, want, off, l.readFile); err != nil {
		return 0, l.fail(err)
	}
	if len(want) < len(p) {
		return len(want), io.EOF
	}
	return len(want), nil
}

func (l *layer) fail(err error) error {
	if err == context.Canceled || err == context.DeadlineExceeded {
		return err
	}
	return l.source.fail(fmt.Errorf("layer %s: %w", l.DiffDigest, err))
}

// made returns the recipe, and makes it if need be. One that fails is tried again.
func (l *layer) made(ctx context.Context) (*recipe, error) {
	select {
	case l.making <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-l.making }()
	if l.recipe != nil {
		return l.recipe, nil
	}
	name := l.ID + ".tar-split.gz"
	f, err := l.store.layers.Open(name)
	if errors.Is(err, fs.ErrNotExist) && !errors.As(err, new(*beneath.RefusedError)) {
		if !l.store.files.Exists(".") || l.gone() {
			return nil, fmt.Errorf("%w: the layer has been removed from the store", remote.ErrNotFound)
		}
		return nil, fmt.Errorf("%w: the store has no tar-split of it", remote.ErrUnsupported)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, _, err := tarball.Decompress(ctx, f)
	if err == nil {
		defer text.Close()
		l.recipe, err = makeRecipe(ctx, text, l.DiffSize, &l.source.shelf)
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, remote.ErrTooBig):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %s: %w", remote.ErrUnsupported, f.Name(), err)
	}
	if r := l.recipe; r.size != l.DiffSize {
		_ = l.source.shelf.take(-r.packed())
		l.recipe = nil
		return nil, fmt.Errorf("%w: its tar-split is of a tar of %d bytes, and the store says %d", remote.ErrDigest, r.size, l.DiffSize)
	}
	return l.recipe, nil
}

// gone tells whether the directory of the layer is not there any more.
func (l *layer) gone() bool {
	dir, err := l.store.dir(l.ID)
	return err == nil && !l.store.files.Exists(dir)
}

// readFile fills p with the content of a file from off on. All of the file's names are
// resolved below the layer's directory, and no link is followed.
func (l *layer) readFile(name string, size int64, p []byte, off int64) error {
	dir, err := l.store.dir(l.ID)
	if err != nil {
		return err
	}
	f, err := l.store.files.Open(dir + "/" + name)
	var refused *beneath.RefusedError
	switch {
	case errors.As(err, &refused) && (refused.Err == unix.EACCES || refused.Err == unix.EPERM):
		return fmt.Errorf("%s: %w", l.store.files.Path(dir+"/"+name), fs.ErrPermission)
	case errors.As(err, &refused):
		return fmt.Errorf("%w: %w", remote.ErrUnsupported, err)
	case errors.Is(err, fs.ErrNotExist) && l.gone():
		return fmt.Errorf("%w: the layer has been removed from the store", remote.ErrNotFound)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", remote.ErrDigest, err)
	case err != nil:
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if st.Size != size {
		return fmt.Errorf("%w: %s has %d bytes, and had %d", remote.ErrDigest, f.Name(), st.Size, size)
	}
	if n, err := f.ReadAt(p, off); n < len(p) {
		if err == io.EOF {
			return fmt.Errorf("%w: %s has become shorter", remote.ErrDigest, f.Name())
		}
		return err
	}
	return nil
}

// An absent blob is one that the image does not have.
type absent struct {
	source *Source
	desc   ocispec.Descriptor
}

// Digest implements remote.Blob.
func (a *absent) Digest() digest.Digest { return a.desc.Digest }

// Size implements remote.Blob.
func (a *absent) Size() int64 { return a.desc.Size }

// ReadAt implements remote.Blob.
func (a *absent) ReadAt(ctx context.Context, _ []byte, _ int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return 0, a.source.fail(fmt.Errorf("blob %s: %w", a.desc.Digest, remote.ErrNotFound))
}
