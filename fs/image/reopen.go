package image

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/indexes"
	"github.com/imgfs/imgfs/remote/held"
	"github.com/imgfs/imgfs/remote/indexrepo"
)

// A heldImage is what a successor has got.
type heldImage struct {
	heldRecord
	files map[string]*os.File // descriptors of our own
}

// openHeld reads the record. The files stay the caller's.
func openHeld(files []Held) (*heldImage, error) {
	h := &heldImage{files: make(map[string]*os.File)}
	for _, f := range files {
		if f.Name != recordName {
			continue
		}
		if err := held.ReadFile(f.File, &h.heldRecord); err != nil {
			return nil, fmt.Errorf("what is held of the image: %w", err)
		}
	}
	if h.Version != heldVersion || h.Source == nil {
		return nil, fmt.Errorf("what is held of the image is of version %d, and not %d", h.Version, heldVersion)
	}
	for _, f := range files {
		if f.Name == recordName {
			continue
		}
		dup, err := indexes.Dup(f.File)
		if err != nil {
			return nil, errors.Join(err, h.Close())
		}
		h.files[f.Name] = dup
	}
	return h, nil
}

// Close implements io.Closer.
func (h *heldImage) Close() error {
	var errs []error
	for _, f := range h.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// layer returns what is held of the layer at a position, nil if that is nothing.
func (h *heldImage) layer(at int, l remote.Layer) *heldLayer {
	if h == nil || at >= len(h.Layers) {
		return nil
	}
	if x := &h.Layers[at]; x.Digest == l.Digest() && x.DiffID == l.DiffID && h.files[x.Index] != nil {
		return x
	}
	return nil
}

// resolveHeld is resolve of an image that is held: nothing is asked, and what the name
// means now is nobody's business.
func (r *Resolved) resolveHeld(ctx context.Context) error {
	h, err := openHeld(r.opts.Held)
	if err != nil {
		return err
	}
	r.closing = append(r.closing, h)
	r.held, r.asked = h, h.Asked
	r.adoptTemporary(h)
	inner := r.again
	if h.Registry {
		src, err := r.source(ctx, "docker://"+h.Source.Name)
		if err != nil {
			return err
		}
		inner = func(context.Context) (remote.Source, error) { return src, nil }
	}
	src := h.Source.Source(func(name string) *os.File { return h.files[name] }, inner)
	// The manifest is the one that was chosen, whatever the host is.
	if r.Image, err = remote.Open(ctx, src, ""); err != nil {
		return err
	}
	h.Source.Image(r.Image)
	if r.found == nil {
		r.found = src
	}
	return nil
}

// adoptTemporary has what the first process unpacked count in the budget, if there is room:
// it is held all the same.
func (r *Resolved) adoptTemporary(h *heldImage) {
	adopted := make(map[string]bool)
	for _, b := range h.Source.Blobs {
		f := h.files[b.File]
		if f == nil || adopted[b.File] {
			continue
		}
		adopted[b.File] = true
		if dup, err := indexes.Dup(f); err == nil {
			if t, err := r.disk.AdoptTemp(dup); err == nil {
				r.closing = append(r.closing, t)
			}
		}
	}
}

// again opens the source that the image came from, once for all blobs that are in no held
// file. One that cannot be opened is tried again by the next read.
func (r *Resolved) again(ctx context.Context) (remote.Source, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inner != nil {
		return r.inner.found, nil
	}
	fresh := &Resolved{opts: r.opts, disk: r.disk}
	fresh.opts.Stdin = nil
	found, err := fresh.find(ctx, r.asked)
	if err != nil {
		return nil, errors.Join(err, fresh.Close())
	}
	fresh.found, r.inner = found, fresh
	return found, nil
}

// closeInner closes what again has opened.
func (r *Resolved) closeInner() error {
	r.mu.Lock()
	inner := r.inner
	r.inner = nil
	r.mu.Unlock()
	if inner == nil {
		return nil
	}
	return inner.Close()
}

// reopen returns what a held layer is read by: the index that the tree was made of.
func (o *opener) reopen(ctx context.Context, open *Layer, h *heldLayer) (*layerState, error) {
	l := open.Layer
	if blob, ok := l.Blob.(remote.SizedBlob); ok && h.Size != l.Size() {
		l.Blob = blob.WithSize(h.Size)
	}
	x, err := o.heldIndex(ctx, l, h)
	if err != nil {
		return nil, fmt.Errorf("what is held of it: %w", err)
	}
	if x.BlobSize() != l.Size() {
		x.Close()
		return nil, fmt.Errorf("what is held of it: %w: it is of %d bytes, and not of %d", layerindex.ErrIndex, x.BlobSize(), l.Size())
	}
	s, err := o.connect(l, x, h.Use)
	if err == nil {
		err = o.admit(x)
	}
	if err != nil {
		x.Close()
		return nil, err
	}
	open.Layer = l
	s.key = h.Key
	if h.Published != nil {
		s.published = &indexrepo.Published{Description: h.Published.Description, Repository: h.Published.Repository}
	}
	if h.Use.Vouched == VouchedHere {
		return s, nil
	}
	if err := o.knownFalse(l.Digest(), h.Key, x); err != nil {
		s.wrong = fmt.Errorf("layer %s: %w (%s): %w", l.Digest(), ErrLiar, s.use, err)
	}
	return s, nil
}

// heldIndex opens the held index of a layer.
func (o *opener) heldIndex(ctx context.Context, l remote.Layer, h *heldLayer) (*layerindex.Index, error) {
	f := o.held.files[h.Index]
	if h.Published == nil {
		return indexes.OpenHeld(f, claimOf(l))
	}
	p := h.Published
	src, err := o.publisher(p.Repository)
	if err != nil {
		return nil, err
	}
	index, err := src.Blob(p.Index)
	if err != nil {
		return nil, err
	}
	came := o.received(l.Digest())
	opts := &indexes.FarOptions{
		Header: p.Header, Listing: p.Listing, Index: o.cache.Blobs.Direct(index, came), Held: f,
		MakeRoom: o.cache.MakeRoom, DiskFailed: o.cache.WarnDisk,
	}
	if p.Digests.Digest != "" {
		digests, err := src.Blob(p.Digests)
		if err != nil {
			return nil, err
		}
		opts.Digests = o.cache.Blobs.Direct(digests, came)
	}
	return o.store.Far(ctx, claimOf(l), opts)
}

// publisher returns the repository that an index is in. Nothing is asked of it.
func (o *opener) publisher(repository string) (remote.Source, error) {
	r := o.others.img
	if r.found != nil && r.found.Repository() == repository {
		return r.wrapped(r.found), nil
	}
	src, err := r.indexRepository(repository)
	if err != nil {
		return nil, err
	}
	return r.wrapped(src), nil
}

// ownAgain has a layer that was opened by a held index read by our own, if there is one
// that was found to say the same before, or is found to by what both list.
func (l *Layer) ownAgain(ctx context.Context, h *heldLayer) error {
	o, was := l.opener, l.opened
	y, err := o.ownHeld(ctx, l.Layer, h)
	if y == nil {
		return err
	}
	s, err := o.connect(l.Layer, y, useHere())
	if err != nil {
		y.Close()
		return err
	}
	s.mended = true
	if !y.SameEntries(was.index) {
		c := &comparison{theirs: was.index, ours: y, hides: hidesTOC(l.Layer), gone: was.index.Far(), placed: true}
		if err = c.run(ctx); err == nil && !c.places.identical() {
			s.places = c.places
		}
	}
	if errors.Is(err, errDisagree) {
		s.wrong = fmt.Errorf("layer %s: %w (%s): %w; nothing of it can be read in this tree: %w", l.Digest(), ErrLiar, was.use, err, ErrReopen)
		err = nil
	}
	if err != nil {
		s.reader.Close()
		y.Close()
		return ctx.Err() // it is read by the index that it was opened by
	}
	l.mend.replace(l, was, s)
	return nil
}

// ownHeld returns the index by which a layer was read when it was held, or our own of a
// layer that was read by another; nil if there is none.
func (o *opener) ownHeld(ctx context.Context, l remote.Layer, h *heldLayer) (*layerindex.Index, error) {
	if f := o.held.files[h.Own]; f != nil {
		return indexes.OpenHeld(f, claimOf(l))
	}
	if h.Use.Vouched == VouchedHere {
		return nil, nil
	}
	x, err := o.store.Load(ctx, claimOf(l))
	if err != nil {
		return nil, ctx.Err()
	}
	return x, nil
}
