package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/imgfs/imgfs/fs/snapshotter"
	"github.com/imgfs/imgfs/remote/printable"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// leaseTime is when containerd ends the lease of a fetch that was killed.
	leaseTime = 24 * time.Hour
	// lastCall is how long giving back the lease may take after an interrupt: an interrupted
	// command has a second to end.
	lastCall = 800 * time.Millisecond
)

// A Fetch brings into the content store of containerd what it lacks of images whose layers
// were mounted in place of being fetched.
//
// What is brought stays as long as the image: its manifest refers to it, as after a pull
// that fetches. Until all of it is there a lease holds the image. What was begun and not
// ended goes on the next time, within a day, as containerd keeps it as long.
type Fetch struct {
	Client *Client
	// Namespace is that of the image.
	Namespace string
	// Open reads a blob of an image in a registry from byte off on. With again what came
	// the last time was not the blob.
	Open func(ctx context.Context, img snapshotter.Image, d ocispec.Descriptor, off int64, again bool) (io.ReadCloser, error)
	// Known are images that may have the layers of others: those of a snapshotter.
	Known []snapshotter.Image
	// Platform is that of the layers, as remote.Open has it. Default: those of the manifests
	// in Known, or else this machine's.
	Platform string
	// Progress, if not nil, is told how many bytes of the image's are there.
	Progress func(have, all int64)
	// Debugf is told of what did not work and was tried otherwise.
	Debugf func(format string, args ...any)
}

// A Fetched image has all of its blobs in the content store.
type Fetched struct {
	Name      string // that containerd has it under
	Platforms int    // manifests of which all is there
	Blobs     int    // of them
	Bytes     int64
	// NewBlobs and NewBytes were not there before.
	NewBlobs int
	NewBytes int64
}

// Run fetches what is missing of an image. The error is a *NoImageError if it has no image of the name, and wraps ErrStoreFull
// if its disk is full.
func (f *Fetch) Run(ctx context.Context, name string) (Fetched, error) {
	ctx = namespaces.WithNamespace(ctx, f.Namespace)
	img, err := f.Client.find(ctx, name)
	if err != nil {
		return Fetched{}, err
	}
	r := &fetching{Fetch: f, img: img, got: Fetched{Name: img.name}}
	release, err := r.lease(ctx)
	if err != nil {
		return r.got, err
	}
	defer release()
	if r.all, err = f.Client.manifests(ctx, img); err != nil {
		return r.got, err
	}
	if len(r.all) == 0 {
		return r.got, fmt.Errorf("%s: containerd has none of its manifests: it was not pulled", printable.Name(img.name))
	}
	if r.all, err = choose(r.all, r.Platform, r.isKnown); err != nil {
		return r.got, fmt.Errorf("%s: %w", printable.Name(img.name), err)
	}
	missing, err := r.plan(ctx)
	if err != nil {
		return r.got, err
	}
	for _, b := range missing {
		if err := r.bring(ctx, b); err != nil {
			return r.got, fmt.Errorf("%s: %w", printable.Name(img.name), err)
		}
	}
	return r.got, r.check(ctx)
}

// fetching is one run of a Fetch.
type fetching struct {
	*Fetch
	img    *held
	all    []*manifest
	have   int64 // bytes of Bytes that are there
	got    Fetched
	others []*origin // see origins
}

// isKnown reports whether a manifest is one of those in Known.
func (f *Fetch) isKnown(d digest.Digest) bool {
	return slices.ContainsFunc(f.Known, func(img snapshotter.Image) bool { return img.Digest == d })
}

// A missing blob is one that a manifest has and the content store has not.
type missing struct {
	ocispec.Descriptor
	in *manifest
}

// lease has containerd keep all that the image refers to, whatever becomes of its name.
func (r *fetching) lease(ctx context.Context) (release func(), err error) {
	var l leases.Lease
	err = r.Client.call(ctx, func(ctx context.Context) (err error) {
		l, err = r.Client.leases.Create(ctx, leases.WithRandomID(), leases.WithExpiration(leaseTime))
		return err
	})
	if err != nil {
		return nil, err
	}
	release = func() {
		limit := callLimit
		if ctx.Err() != nil {
			limit = lastCall
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		if err := r.Client.leases.Delete(ctx, l); err != nil {
			r.debugf("lease %s: %v", l.ID, r.Client.fault(err)) // it ends by itself
		}
	}
	err = r.Client.call(ctx, func(ctx context.Context) error {
		return r.Client.leases.AddResource(ctx, l, leases.Resource{ID: r.img.target.String(), Type: "content"})
	})
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// plan finds out what is missing, and has manifests refer to it: it stays from when it is
// there.
func (r *fetching) plan(ctx context.Context) (list []missing, err error) {
	seen := make(map[digest.Digest]bool)
	for _, m := range r.all {
		if err := r.Client.hold(ctx, m); err != nil {
			return nil, err
		}
		for _, p := range m.parts {
			if seen[p.Digest] {
				continue
			}
			seen[p.Digest] = true
			there, err := r.Client.hasBlob(ctx, p.Digest)
			if err != nil {
				return nil, err
			}
			r.got.Blobs++
			r.got.Bytes += p.Size
			if there {
				r.have += p.Size
			} else {
				list = append(list, missing{p, m})
			}
		}
	}
	r.got.Platforms = len(r.all)
	r.progress(0)
	return list, nil
}

// hasBlob reports whether the content store has a blob.
func (c *Client) hasBlob(ctx context.Context, d digest.Digest) (bool, error) {
	err := c.call(ctx, func(ctx context.Context) error {
		_, err := c.content.Info(ctx, d)
		return err
	})
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// progress counts n more bytes.
func (r *fetching) progress(n int64) {
	r.have += n
	if r.Progress != nil {
		r.Progress(r.have, r.got.Bytes)
	}
}

func (r *fetching) debugf(format string, args ...any) {
	if r.Debugf != nil {
		r.Debugf(format, args...)
	}
}

// bring brings one blob, from the first of its origins that has it.
func (r *fetching) bring(ctx context.Context, b missing) error {
	var first error // the image's own origin comes first
	for o, err := range r.origins(ctx, b) {
		if err != nil {
			return err
		}
		had := r.have
		if err = r.from(ctx, o, b); err == nil {
			r.got.NewBlobs++
			r.got.NewBytes += b.Size
			return nil
		}
		r.progress(had - r.have)
		if store := (*storeError)(nil); ctx.Err() != nil || errors.As(err, &store) {
			return fmt.Errorf("blob %s: %w", b.Digest, err)
		}
		r.debugf("blob %s is not to be had from %s: %v", b.Digest, printable.Name(NameOf(o)), err)
		if first == nil {
			first = fmt.Errorf("blob %s: %w", b.Digest, err)
		}
	}
	if first == nil {
		return fmt.Errorf("blob %s: nothing says which registry has it", b.Digest)
	}
	return first
}

// check finds out whether all is there still: somebody may have removed the image.
func (r *fetching) check(ctx context.Context) error {
	for _, m := range r.all {
		for _, p := range m.parts {
			there, err := r.Client.hasBlob(ctx, p.Digest)
			if err != nil {
				return err
			}
			if !there {
				return fmt.Errorf("%s: blob %s is gone from containerd's content store again", printable.Name(r.img.name), p.Digest)
			}
		}
	}
	switch again, err := r.Client.find(ctx, r.img.name); {
	case err != nil:
		return fmt.Errorf("%s: it was removed meanwhile: %w", printable.Name(r.img.name), err)
	case again.target != r.img.target:
		return fmt.Errorf("%s: it is another image by now", printable.Name(r.img.name))
	}
	return nil
}
