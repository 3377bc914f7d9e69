// Package held makes a source of an image out of open files, for a process that takes over
// from another one: what lay in a registry, an archive or a directory when the first one
// opened the image may be gone by then.
//
//	r, files, left := held.Of(img)           // in the first process
//	src := r.Source(files, inner)                 // in the next one, with the same files
//	img, err := remote.Open(ctx, src, "")
//
// A Record has the documents of an image, and says where the bytes of its layers are in
// files that are open. Layers that are in no file are left to the source that the image
// came from, which is opened when the first byte of them is read.
package held

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/internal/localblob"
)

// A File is an open file under the name that a Record calls it by.
type File struct {
	Name string
	File *os.File
}

// A Record says what an image is. It is written as JSON.
type Record struct {
	// Name and Repository are those of the source.
	Name       string `json:"name"`
	Repository string `json:"repository,omitempty"`
	// Top is what the reference named, and Manifest the platform's manifest.
	Top      ocispec.Descriptor `json:"top"`
	Manifest ocispec.Descriptor `json:"manifest"`
	// Raw is the content of Top if that is not Manifest.
	Raw []byte `json:"raw,omitempty"`
	// Documents are the contents of manifest and config.
	Documents [][]byte `json:"documents"`
	// Blobs are the layers that lie on this machine, in the order of the manifest.
	Blobs []Blob `json:"blobs,omitempty"`
}

// A Blob says where a layer's bytes are.
type Blob struct {
	// Layer is the digest that the manifest has, Digest that of the bytes: the layers of
	// docker's archives may be compressed, which their manifest does not know.
	Layer  digest.Digest `json:"layer"`
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
	// File is the name of the file that the bytes are in, from byte Off on; "" if they
	// are in none.
	File string `json:"file,omitempty"`
	Off  int64  `json:"off,omitempty"`
}

// Of returns what is to be held of an image whose source is open, and the files, which
// stay the source's. left says which layers are in none of them, in words for the user;
// "" if there are no such layers. What is in a registry needs no files.
func Of(img *remote.Image) (r *Record, files []File, left string) {
	r = &Record{
		Name: img.Source.Name(), Repository: img.Source.Repository(),
		Top: bare(img.Top), Manifest: bare(img.Descriptor), Documents: [][]byte{img.Manifest, img.Config},
	}
	if r.Top.Digest != r.Manifest.Digest {
		r.Raw = img.Raw
	}
	var m ocispec.Manifest
	_ = json.Unmarshal(img.Manifest, &m) // it was read before
	names := make(map[*os.File]string)
	for i, l := range img.Layers {
		if !remote.IsLocal(l.Blob) || i >= len(m.Layers) {
			continue
		}
		b := Blob{Layer: m.Layers[i].Digest, Digest: l.Digest(), Size: l.Size()}
		if f, off, err := fileOf(l.Blob); err != nil {
			left = fmt.Sprintf("layer %s: %v", l.Digest(), err)
		} else {
			if names[f] == "" {
				names[f] = "blobs-" + strconv.Itoa(len(files))
				files = append(files, File{names[f], f})
			}
			b.File, b.Off = names[f], off
		}
		r.Blobs = append(r.Blobs, b)
	}
	return r, files, left
}

// bare returns of a descriptor what Open goes by.
func bare(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

func fileOf(b remote.Blob) (*os.File, int64, error) {
	f, ok := b.(localblob.FileBlob)
	if !ok {
		return nil, 0, fmt.Errorf("%w: it is put together of many files", remote.ErrUnsupported)
	}
	return f.File()
}

// Source returns the image as a source. file returns the file of a name, nil if there is
// none; the files must stay open as long as the source is used, and are only read at
// offsets. inner returns the source that the image came from, for blobs that are in no
// file; it is called when one of those is first read, or for each blob of a registry.
func (r *Record) Source(file func(name string) *os.File, inner func(ctx context.Context) (remote.Source, error)) remote.Source {
	return &source{r, file, inner}
}

// Image completes an image that remote.Open has made of the source: what led to the
// manifest is as it was.
func (r *Record) Image(img *remote.Image) {
	img.Top = r.Top
	if r.Raw != nil {
		img.Raw = r.Raw
	}
}

type source struct {
	*Record
	file  func(string) *os.File
	inner func(context.Context) (remote.Source, error)
}

// Name implements remote.Source.
func (s *source) Name() string { return s.Record.Name }

// Repository implements remote.Source.
func (s *source) Repository() string { return s.Record.Repository }

// Resolve implements remote.Source: the manifest for the platform, whatever it was found
// in.
func (s *source) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	return s.Manifest, ctx.Err()
}

// Fetch implements remote.Source.
func (s *source) Fetch(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("%s: digest %q: %w", s.Name(), desc.Digest, err)
	}
	for _, content := range s.Documents {
		if desc.Digest.Algorithm().FromBytes(content) == desc.Digest {
			return content, ctx.Err()
		}
	}
	return nil, fmt.Errorf("%s: %s: not held: %w", s.Name(), desc.Digest, remote.ErrNotFound)
}

// Blob implements remote.Source.
func (s *source) Blob(desc ocispec.Descriptor) (remote.Blob, error) {
	for _, b := range s.Blobs {
		if b.Layer != desc.Digest {
			continue
		}
		real := ocispec.Descriptor{MediaType: desc.MediaType, Digest: b.Digest, Size: b.Size}
		f := s.file(b.File)
		if f == nil {
			return &laterBlob{s, desc, b}, nil
		}
		content := io.NewSectionReader(f, b.Off, b.Size)
		held, err := localblob.New(s.Name(), real, func(digest.Digest) (localblob.Content, error) { return content, nil })
		if err != nil {
			return nil, err
		}
		return heldBlob{held, f, b.Off}, nil
	}
	src, err := s.inner(context.Background())
	if err != nil {
		return nil, err
	}
	return src.Blob(desc)
}

// A heldBlob is a part of a file.
type heldBlob struct {
	*localblob.Blob
	file *os.File
	off  int64
}

var _ localblob.FileBlob = heldBlob{}

// File implements localblob.FileBlob.
func (b heldBlob) File() (*os.File, int64, error) { return b.file, b.off, nil }

// A laterBlob is one of the source that the image came from.
type laterBlob struct {
	source *source
	desc   ocispec.Descriptor
	blob   Blob
}

var _ remote.LocalBlob = (*laterBlob)(nil)

// Digest implements remote.Blob.
func (b *laterBlob) Digest() digest.Digest { return b.blob.Digest }

// Size implements remote.Blob.
func (b *laterBlob) Size() int64 { return b.blob.Size }

// Local implements remote.LocalBlob.
func (b *laterBlob) Local() bool { return true }

// ReadAt implements remote.Blob. What the source has now is checked by whoever reads it, as
// ever.
func (b *laterBlob) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	src, err := b.source.inner(ctx)
	if err != nil {
		return 0, err
	}
	blob, err := src.Blob(b.desc)
	if err == nil && (blob.Digest() != b.blob.Digest || blob.Size() != b.blob.Size) {
		err = fmt.Errorf("%s: layer %s is another one now: %w", b.source.Name(), b.blob.Digest, remote.ErrDigest)
	}
	if err != nil {
		return 0, err
	}
	return blob.ReadAt(ctx, p, off)
}
