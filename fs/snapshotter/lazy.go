package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
)

// Labels that clients of containerd name an image in (pkg/snapshotters/annotations.go).
const (
	labelRef      = "containerd.io/snapshot/cri.image-ref"
	labelManifest = "containerd.io/snapshot/cri.manifest-digest"
)

// A Reason is why a layer is unpacked although a chain was asked for.
type Reason string

// The reasons.
const (
	NoImage     Reason = "no-image"    // labels name no image: the client has not been told to
	BadLabels   Reason = "bad-labels"  // they name what cannot be one, or a chain that is not its
	Unreachable Reason = "unreachable" // the image's manifest or config cannot be had
	Unsupported Reason = "unsupported" // its layers are of a kind that cannot be mounted
	PassFailed  Reason = "pass-failed" // the pass over its layers failed not long ago
	Failed      Reason = "failed"      // something on this machine
)

// Reasons returns all of them.
func Reasons() []Reason {
	return []Reason{NoImage, BadLabels, Unreachable, Unsupported, PassFailed, Failed}
}

// A fallback is an error with the reason of falling back.
type fallback struct {
	reason Reason
	err    error
}

func (f *fallback) Error() string { return f.err.Error() }
func (f *fallback) Unwrap() error { return f.err }

// reasonOf returns why somebody falls back who has got an error.
func reasonOf(err error) Reason {
	if f := (*fallback)(nil); errors.As(err, &f) {
		return f.reason
	}
	return Failed
}

func refuse(reason Reason, format string, args ...any) error {
	return &fallback{reason, fmt.Errorf(format, args...)}
}

// prepareLazy makes a committed snapshot of a chain, if there is none with the same parent,
// and begins the pass over its layers. key is what was to be unpacked into. Every error means
// that the layer is to be unpacked.
func (s *Snapshotter) prepareLazy(ctx context.Context, target, key, parent string, base snapshots.Info) error {
	id, below, src, err := s.identify(ctx, target, base.Labels)
	if err != nil {
		return err
	}
	if (parent == "") != (src.Layers == 1) {
		return refuse(BadLabels, "it is layer %d of %s, and its parent is %q", src.Layers, describe(src.Image), parent)
	}
	base.Labels = withRef(base.Labels, id.String())
	c := s.lockChain(id)
	defer c.mu.Unlock()
	if err := s.setRecord(c, func(r record) record { return r.with(src) }); err != nil {
		s.sweepSoon()
		return err
	}
	if err := s.commitLazy(ctx, c, below, key, parent, base); err != nil {
		s.sweepSoon()
		return err
	}
	// Also of a chain that is ready: only an image whose pass has succeeded is mounted before
	// the one that made it so.
	pass, err := s.passes.begin(ctx, src.Image)
	switch {
	case err != nil:
		s.debugf("chain %s: %v", id, err) // Stat begins it, if anybody asks still
	case pass.landed() && pass.err == nil:
		err = s.setRecord(c, func(r record) record { return r.proven(src.Image) })
		if err != nil {
			s.debugf("%v", err)
		}
	}
	return nil
}

// identify finds out which layers of which image labels mean. below is the chain of all but
// the topmost, and "" if that is the only one.
func (s *Snapshotter) identify(ctx context.Context, target string, labels map[string]string) (id, below digest.Digest, src source, err error) {
	img := Image{Ref: labels[labelRef], Digest: digest.Digest(labels[labelManifest])}
	if img == (Image{}) {
		return "", "", src, refuse(NoImage, "labels name no image")
	}
	if !img.valid() {
		return "", "", src, refuse(BadLabels, "labels name no valid image: %.100q, manifest %.100q", img.Ref, img.Digest)
	}
	if id, err = parseChain(target); err != nil {
		return "", "", src, refuse(BadLabels, "%w", err)
	}
	if err := s.passes.failure(img); err != nil {
		return "", "", src, refuse(PassFailed, "%s: the pass over its layers has failed: %w", describe(img), err)
	}
	check, err := s.checks.begin(ctx, img)
	if err != nil {
		return "", "", src, err
	}
	diffIDs, err := check.wait(ctx)
	switch {
	case errors.Is(err, ErrUnsupported):
		return "", "", src, refuse(Unsupported, "%s: %w", describe(img), err)
	case err != nil:
		return "", "", src, refuse(Unreachable, "%s: %w", describe(img), err)
	}
	chains := identity.ChainIDs(slices.Clone(diffIDs))
	i := slices.Index(chains, id)
	if i < 0 {
		return "", "", src, refuse(BadLabels, "%s has no such chain", describe(img))
	}
	if i > 0 {
		below = chains[i-1]
	}
	return id, below, source{Image: img, Layers: i + 1}, nil
}

// diffIDs asks for the layers of an image, for as long as somebody who waits has patience.
func (s *Snapshotter) diffIDs(ctx context.Context, img Image) ([]digest.Digest, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.CheckTimeout)
	defer cancel()
	ids, err := s.trees.DiffIDs(ctx, img)
	if err != nil {
		s.warnf("the layers of %s are unpacked: %v", describe(img), err)
	}
	return ids, err
}

// commitLazy makes a committed snapshot of a chain, unless there is one with this parent.
// c.mu is held, so that the chain is not removed meanwhile.
func (s *Snapshotter) commitLazy(ctx context.Context, c *chain, below digest.Digest, key, parent string, base snapshots.Info) error {
	return s.meta.WithTransaction(ctx, true, func(ctx context.Context) error {
		name, there, err := lazyName(ctx, c.id, below, parent)
		if err != nil || there {
			return err
		}
		if _, err := storage.CreateSnapshot(ctx, snapshots.KindActive, key, parent, whole(base)); err != nil {
			return err
		}
		base.Parent = "" // it has one since it was created
		_, err = storage.CommitActive(ctx, key, name, snapshots.Usage{}, whole(base))
		return err
	})
}

// lazyName returns the name for a lazy snapshot of a chain with a parent, and whether it has
// been made. That is the chain id, which no name is that containerd gives, as those begin
// with a namespace. A chain whose lower part is unpacked in one namespace and lazy in another
// has two snapshots: the second one is told from the first by the id of its parent.
func lazyName(ctx context.Context, id, below digest.Digest, parent string) (name string, there bool, err error) {
	names := []string{id.String(), id.String() + "@0"}
	if parent != "" {
		number, info, _, err := storage.GetInfo(ctx, parent)
		if err != nil {
			return "", false, err
		}
		if of := lazyChain(info); of != "" && of != below {
			return "", false, refuse(BadLabels, "its parent is chain %s, and not %s", of, below)
		}
		names[1] = id.String() + "@" + number
	}
	for _, name := range names {
		_, info, _, err := storage.GetInfo(ctx, name)
		if errdefs.IsNotFound(err) {
			return name, false, nil
		}
		if err != nil {
			return "", false, err
		}
		if info.Parent == parent && lazyChain(info) == id {
			return name, true, nil
		}
	}
	return "", false, fmt.Errorf("snapshot %s: its name is taken", id)
}
