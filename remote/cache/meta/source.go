package meta

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/cache/internal/directory"
)

// SourceOptions configures a cached Source. Nil and the zero value mean the
// defaults.
type SourceOptions struct {
	// Pinned says that the reference can never name something else, as one
	// by digest: what it resolved to once is not asked for again. Names that
	// end in @DIGEST are pinned without it.
	Pinned bool
	// Offline says never to ask the source for anything.
	Offline bool
	// Warnf gets one sentence when a reference could not be resolved anew
	// and what it resolved to last is used. The default drops it.
	Warnf func(format string, args ...any)
}

// A source is a remote.Source that remembers.
type source struct {
	remote.Source
	c    *Cache
	opts SourceOptions
}

var _ remote.ArtifactSource = (*source)(nil)

// Source returns src as seen through the cache.
//
// Fetch takes manifests, image indexes and configs from disk, checked against
// their digest, and asks src for those that are not there. Resolve asks src,
// and remembers the answer; if src is unavailable it returns what it remembers,
// with a warning, if that is on disk. It is a remote.ArtifactSource that knows of as
// much as src. Blob is that of src: see Cache.Blob. Offline, or for a pinned
// reference that is known, src is not asked; what would need it is
// remote.ErrUnavailable, wrapped. Blobs on a local disk are read offline too.
func (c *Cache) Source(src remote.Source, opts *SourceOptions) remote.Source {
	s := &source{Source: src, c: c}
	if opts != nil {
		s.opts = *opts
	}
	if s.opts.Warnf == nil {
		s.opts.Warnf = func(string, ...any) {}
	}
	return s
}

// pinned returns the digest at the end of a name, "" if there is none.
func pinned(name string) digest.Digest {
	d := digest.Digest(name[strings.LastIndex(name, "@")+1:])
	if d.Validate() != nil {
		return ""
	}
	return d
}

func (s *source) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	name := s.Name()
	pin := pinned(name)
	kept, known := s.c.keptRef(name)
	if known && pin != "" && kept.Descriptor.Digest != pin {
		known = false
	}
	if !known && pin != "" {
		// It may have been fetched under another name.
		kept.Descriptor, known = s.c.describe(pin)
	}
	if known && (s.opts.Offline || s.opts.Pinned || pin != "") {
		return kept.Descriptor, nil
	}
	if s.opts.Offline {
		return ocispec.Descriptor{}, offline(name)
	}
	s.c.count.requests.Add(1)
	desc, err := s.Source.Resolve(ctx)
	s.c.count.fetched.Add(remote.Received(s.Source, 0))
	if err == nil {
		s.c.keepRef(name, desc)
		return desc, nil
	}
	if !known || ctx.Err() != nil || !errors.Is(err, remote.ErrUnavailable) {
		return ocispec.Descriptor{}, err
	}
	if _, ok := s.c.KeptMeta(kept.Descriptor.Digest); !ok {
		return ocispec.Descriptor{}, err // it was never got
	}
	s.opts.Warnf("the tag could not be checked, using the image as last seen on %s: %v", kept.Seen.Local().Format("2006-01-02 15:04"), err)
	return kept.Descriptor, nil
}

// ResolveTag implements remote.ArtifactSource. What a tag named last is remembered as
// it is for Resolve, and used offline alone: nobody needs what is beside an image.
func (s *source) ResolveTag(ctx context.Context, tag string) (ocispec.Descriptor, error) {
	name := s.Repository() + ":" + tag
	if s.opts.Offline {
		if kept, ok := s.c.keptRef(name); ok && s.Repository() != "" {
			return kept.Descriptor, nil
		}
		if !s.local() {
			return ocispec.Descriptor{}, offline(name)
		}
	}
	src, ok := s.Source.(remote.ArtifactSource)
	if !ok {
		return ocispec.Descriptor{}, fmt.Errorf("%s: tag %.200q: %w", s.Name(), tag, remote.ErrNotFound)
	}
	s.c.count.requests.Add(1)
	desc, err := src.ResolveTag(ctx, tag)
	s.c.count.fetched.Add(remote.Received(s.Source, 0))
	if err == nil && s.Repository() != "" {
		s.c.keepRef(name, desc)
	}
	return desc, err
}

// Referrers implements remote.ArtifactSource. Lists are not remembered.
func (s *source) Referrers(ctx context.Context, subject digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	if s.opts.Offline && !s.local() {
		return nil, offline(fmt.Sprintf("referrers of %s in %s", subject, s.Repository()))
	}
	src, ok := s.Source.(remote.ArtifactSource)
	if !ok {
		return nil, nil
	}
	s.c.count.requests.Add(1)
	list, err := src.Referrers(ctx, subject, artifactType)
	s.c.count.fetched.Add(remote.Received(s.Source, 0))
	return list, err
}

// local tells whether the source lies on this machine, as what is in no repository
// does.
func (s *source) local() bool { return s.Repository() == "" }

// offline is the error for what would have to be asked for.
func offline(what string) error {
	return fmt.Errorf("%s: not in the cache, and the network is not to be used: %w", what, remote.ErrUnavailable)
}

func (s *source) Fetch(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("%s: digest %q: %w", s.Name(), desc.Digest, err)
	}
	if data, ok := s.c.KeptMeta(desc.Digest); ok {
		return data, nil
	}
	if s.opts.Offline {
		return nil, offline(fmt.Sprintf("%s: %s", s.Name(), desc.Digest))
	}
	s.c.count.requests.Add(1)
	data, err := s.Source.Fetch(ctx, desc)
	s.c.count.fetched.Add(remote.Received(s.Source, int64(len(data))))
	if err != nil {
		return nil, err
	}
	if desc.Digest.Algorithm().FromBytes(data) != desc.Digest {
		return nil, fmt.Errorf("%s: %s: %w", s.Name(), desc.Digest, remote.ErrDigest)
	}
	s.c.KeepMeta(desc.Digest, data)
	return data, nil
}

func (s *source) Blob(desc ocispec.Descriptor) (remote.Blob, error) {
	b, err := s.Source.Blob(desc)
	if s.opts.Offline && !(err == nil && remote.IsLocal(b)) {
		return offlineBlob{desc}, nil
	}
	return b, err
}

// An offlineBlob is one that nobody may be asked for.
type offlineBlob struct {
	desc ocispec.Descriptor
}

func (b offlineBlob) Digest() digest.Digest { return b.desc.Digest }

func (b offlineBlob) Size() int64 { return b.desc.Size }

// WithSize implements remote.SizedBlob.
func (b offlineBlob) WithSize(size int64) remote.Blob {
	b.desc.Size = size
	return b
}

// SaidSize implements remote.SizedBlob: nobody is asked.
func (b offlineBlob) SaidSize(context.Context) (int64, bool) { return 0, false }

func (b offlineBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("blob %s: bytes %d to %d are not in the cache, and the network is not to be used: %w",
		b.desc.Digest, off, off+int64(len(p))-1, remote.ErrUnavailable)
}

// KeptMeta returns a manifest or config from disk. One that is not what its
// name says is removed.
func (c *Cache) KeptMeta(d digest.Digest) ([]byte, bool) {
	name := c.dir.Name(directory.Meta, d)
	data, st, err := c.dir.Files().ReadFile(name, directory.MaxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false
	}
	if err == nil && d.Algorithm().FromBytes(data) == d {
		if now := time.Now(); c.dir.ReadOnly() == nil && now.Sub(time.Unix(st.Mtim.Unix())) > time.Hour {
			_ = c.dir.Files().Touch(name, now) // its last use: what to remove first
		}
		return data, true
	}
	c.dir.CountBad()
	if c.dir.ReadOnly() == nil {
		_ = c.dir.Files().Remove(name)
	}
	return nil, false
}

func (c *Cache) KeepMeta(d digest.Digest, data []byte) {
	if len(data) <= directory.MaxRecord {
		c.dir.KeepFile(c.dir.Name(directory.Meta, d), data)
	}
}
