// Package containersstorage reads images where podman, buildah, skopeo and CRI-O keep
// them: containers-storage:[[DRIVER@]ROOT]REF.
//
//	src, err := containersstorage.Open(ctx, "", "localhost/app")
//	img, err := remote.Open(ctx, src, "")
//
// Such a store has manifest and config as they came, and each layer unpacked into a
// directory. Beside it lies a tar-split: all of the layer's tar but the contents of
// files. From both the tar comes about byte for byte, so its digest is the layer's
// diff_id. Nothing is written, and no lock is taken: podman replaces its lists by
// renaming.
//
// A layer's blob is that tar, with the diff_id as digest, whatever the manifest
// describes. So the manifest, its digest and the image's are those of the registry that
// the image came from. Any file of a store may have been changed by whoever may write
// it. As with every source, readers of ranges check what they get.
//
// Files are opened when they are read, below the layer's directory, and no link is
// followed. What a layer's tar-split says is held in memory while the image is open,
// packed, once something of the layer has been read.
package containersstorage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/beneath"
	"github.com/imgfs/imgfs/remote/printable"
)

// A Source is one image of a store. It is safe for concurrent use.
type Source struct {
	location   remote.Location
	repository string
	stores     []*store
	image      *imageRecord
	wanted     wanted
	layers     []*layer // the base first
	shelf      shelf

	mu sync.Mutex
	// byDigest says which layer a digest in a manifest is of.
	byDigest map[digest.Digest]*layer
}

var _ remote.Source = (*Source)(nil)

// Open opens the store that spec says, which is [DRIVER@]ROOT or "" for that of
// storage.conf, and finds an image in it by its name, its ID or digest. Short names are
// completed as podman does it, but only to names that the store has.
//
// The errors are remote.ErrNotFound, ErrReference, ErrUnavailable and ErrUnsupported,
// wrapped. A *remote.StoreError says what to type instead.
func Open(ctx context.Context, spec, image string) (*Source, error) {
	s := &Source{
		location: remote.Location{Transport: remote.TransportContainersStorage, Path: spec, Image: image},
		wanted:   parseWanted(image),
		byDigest: make(map[digest.Digest]*layer),
	}
	if err := s.open(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("%s: %w", s.Name(), err)
	}
	return s, nil
}

func (s *Source) open(ctx context.Context) error {
	all, err := places(s.location.Path)
	if err != nil {
		return err
	}
	for i, p := range all {
		st, err := openStore(p)
		if i > 0 && errors.Is(err, fs.ErrNotExist) {
			continue // podman goes on without it
		}
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: there is no store of podman in %s", remote.ErrNotFound, p.root)
		}
		if err != nil {
			return s.failed(err)
		}
		s.stores = append(s.stores, st)
	}
	// An image may be replaced between the reading of its record and that of its layers.
	for try := 0; ; try++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := s.find()
		if err == nil || try == 2 || !errors.Is(err, errNoLayer) {
			return s.failed(err)
		}
	}
}

// errNoLayer: a layer is not in the store's list.
var errNoLayer = errors.New("the store does not have it")

// find finds the image and its layers.
func (s *Source) find() error {
	var images []*imageRecord
	for _, st := range s.stores {
		more, err := st.readImages()
		if err != nil {
			return err
		}
		images = append(images, more...)
	}
	img, name, err := s.wanted.choose(images)
	if err != nil {
		var several *remote.AmbiguousError
		if errors.As(err, &several) {
			for _, name := range several.Named {
				at := s.location
				at.Image = name
				several.Locations = append(several.Locations, at)
			}
		}
		return err
	}
	s.image = img
	if ref, err := remote.ParseReference(name); err == nil && name != "" {
		s.repository = ref.Name()
	}
	return s.findLayers()
}

// findLayers follows the chain of layers from the image's down to the base. A layer may
// lie on one of another store.
func (s *Source) findLayers() error {
	lists := make([]map[string]*layerRecord, len(s.stores))
	s.layers = nil
	for id := s.image.Layer; id != ""; {
		var rec *layerRecord
		for i, st := range s.stores {
			if lists[i] == nil {
				var err error
				if lists[i], err = st.readLayers(); err != nil {
					return err
				}
			}
			if rec = lists[i][id]; rec != nil {
				break
			}
		}
		if rec == nil {
			return fmt.Errorf("%w: layer %.64q: %w", remote.ErrUnsupported, id, errNoLayer)
		}
		if len(s.layers) == maxChain {
			return fmt.Errorf("%w: more than %d layers", remote.ErrUnsupported, maxChain)
		}
		s.layers = append(s.layers, &layer{layerRecord: rec, source: s, making: make(chan struct{}, 1)})
		id = rec.Parent
	}
	slices.Reverse(s.layers)
	return nil
}

// failed adds what to type instead to an error that it helps against.
func (s *Source) failed(err error) error {
	if err == nil || errors.As(err, new(*remote.StoreError)) {
		return err
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		if !errors.Is(err, remote.ErrUnavailable) {
			err = fmt.Errorf("%w: %w", remote.ErrUnavailable, err)
		}
		return &remote.StoreError{Err: err, Command: s.instead(true)}
	case errors.Is(err, remote.ErrUnsupported), errors.Is(err, remote.ErrTooBig):
		return &remote.StoreError{Err: err, Command: s.instead(false)}
	case errors.As(err, new(*fs.PathError)) && !errors.Is(err, remote.ErrUnavailable):
		return fmt.Errorf("%w: %w", remote.ErrUnavailable, err)
	case errors.As(err, new(*beneath.RefusedError)):
		return fmt.Errorf("%w: %w", remote.ErrUnsupported, err)
	}
	return err
}

// instead returns the command by which the image can be read otherwise. barred says
// that this user may not read it where it is.
func (s *Source) instead(barred bool) string {
	if _, private := rootless(); barred && private && s.location.Path == "" && os.Geteuid() != 0 {
		// The files belong to users of a namespace of this user's.
		return "podman unshare imgfs COMMAND " + printable.Word(s.Name())
	}
	command := "podman"
	if barred && os.Geteuid() != 0 {
		command = "sudo podman"
	}
	if s.location.Path != "" {
		if all, err := places(s.location.Path); err == nil {
			command += " --root " + printable.Word(all[0].root)
			if all[0].driver != "" {
				command += " --storage-driver " + printable.Word(all[0].driver)
			}
		}
	}
	return command + " save -o image.tar " + printable.Word(s.wanted.typed()) + " && imgfs ls image.tar"
}

// typed returns what podman is given for the image.
func (w wanted) typed() string { return strings.TrimPrefix(w.text, "@") }

// Name implements remote.Source: the location as the user writes it.
func (s *Source) Name() string { return s.location.String() }

// Repository implements remote.Source: as for skopeo that of the image's name, if it was
// found by one.
func (s *Source) Repository() string { return s.repository }

// Resolve implements remote.Source. It describes the manifest as it came, or the image
// index if the digest of one was asked for.
func (s *Source) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	if err := ctx.Err(); err != nil {
		return ocispec.Descriptor{}, err
	}
	if d := s.wanted.dgst; d != "" {
		if content, err := s.document(d); err == nil {
			return described(d, content), nil
		}
	}
	content, err := s.image.document("manifest")
	if err != nil {
		return ocispec.Descriptor{}, s.fail(fmt.Errorf("manifest: %w", missing(err)))
	}
	return described(digest.FromBytes(content), content), nil
}

// described describes a manifest, with the media type that it states.
func described(d digest.Digest, content []byte) ocispec.Descriptor {
	desc := ocispec.Descriptor{Digest: d, Size: int64(len(content))}
	var m struct {
		MediaType string `json:"mediaType"`
	}
	if json.Unmarshal(content, &m) == nil {
		desc.MediaType = m.MediaType
	}
	return desc
}

// missing makes an absent file one of remote's errors.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", remote.ErrNotFound, err)
	}
	return err
}

// document returns the document of a digest: a manifest, an image index or the config.
func (s *Source) document(d digest.Digest) ([]byte, error) {
	var failed error
	for _, name := range []string{"manifest-" + d.String(), d.String(), "manifest"} {
		content, err := s.image.document(name)
		if err == nil && d.Algorithm().FromBytes(content) == d {
			return content, nil
		}
		switch {
		case err == nil && name != "manifest":
			err = fmt.Errorf("%w: the content of %s has %s", remote.ErrDigest, name, d.Algorithm().FromBytes(content))
		case err == nil:
			err = remote.ErrNotFound
		default:
			err = missing(err)
		}
		if failed == nil || errors.Is(failed, remote.ErrNotFound) {
			failed = err
		}
	}
	return nil, failed
}

// Fetch implements remote.Source.
func (s *Source) Fetch(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := desc.Digest.Validate(); err != nil {
		return nil, s.fail(fmt.Errorf("%w: digest %.100q: %w", remote.ErrUnsupported, desc.Digest, err))
	}
	content, err := s.document(desc.Digest)
	if err != nil {
		return nil, s.fail(fmt.Errorf("blob %s: %w", desc.Digest, err))
	}
	s.learn(content)
	return content, nil
}

// learn finds out which layer each digest in a manifest is of: the store has them in the
// same order. Other documents say nothing.
func (s *Source) learn(manifest []byte) {
	var m struct {
		Layers []struct {
			Digest digest.Digest `json:"digest"`
		} `json:"layers"`
	}
	if err := json.Unmarshal(manifest, &m); err != nil || len(m.Layers) != len(s.layers) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, l := range m.Layers {
		s.byDigest[l.Digest] = s.layers[i]
	}
}

// Blob implements remote.Source. The blob of a layer is its tar, whatever desc says of
// it.
func (s *Source) Blob(desc ocispec.Descriptor) (remote.Blob, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, s.fail(fmt.Errorf("%w: digest %.100q: %w", remote.ErrUnsupported, desc.Digest, err))
	}
	s.mu.Lock()
	l := s.byDigest[desc.Digest]
	s.mu.Unlock()
	if l == nil {
		return &absent{s, desc}, nil
	}
	if err := l.check(); err != nil {
		return nil, s.fail(fmt.Errorf("layer %s: %w", desc.Digest, err))
	}
	return l, nil
}

// Close closes the store. Blobs cannot be read any more.
func (s *Source) Close() error {
	for _, st := range s.stores {
		st.close()
	}
	return nil
}

func (s *Source) fail(err error) error { return fmt.Errorf("%s: %w", s.Name(), s.failed(err)) }
