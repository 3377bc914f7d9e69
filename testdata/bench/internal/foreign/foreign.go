// Package foreign has the images of the bench whose layers somebody else made an index
// of: as eStargz, as zstd:chunked, and with ztocs of SOCI.
package foreign

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/imgfs/imgfs/layerindex"
	"github.com/imgfs/imgfs/layerindex/soci"
	"github.com/imgfs/imgfs/testdata/bench/internal/runner"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Kind is a kind of index that others make.
type Kind struct {
	Name   string // for the report
	Suffix string // of the lab's images
	Origin layerindex.Origin
}

// The kinds, as the lab has them.
var (
	EStargz     = Kind{"eStargz", "estargz", layerindex.OriginEStargz}
	ZstdChunked = Kind{"zstd:chunked", "zstdchunked", layerindex.OriginZstdChunked}
	SOCI        = Kind{"SOCI v2", "soci", layerindex.OriginSOCI}
)

// A Maker gives images with indexes of others. It is for one goroutine.
type Maker struct {
	r *runner.Runner
	// Compile returns the path of the program testdata/foreign.
	Compile func() (string, error)
	made    map[string]*labimage.Image
}

// ErrNone says why there is no such image here. It comes wrapped.
var ErrNone = errors.New("missing")

// New returns a Maker that works for a group.
func New(r *runner.Runner) *Maker {
	return &Maker{r, func() (string, error) { return r.Compile("foreign", "CGO_ENABLED=0") }, map[string]*labimage.Image{}}
}

// Image returns an ordinary image with indexes of a kind: the lab's, if plain is of the lab
// as well, or one that is made. Name is that of plain. The error wraps ErrNone if there is
// none.
func (m *Maker) Image(kind Kind, name string, plain *labimage.Image) (*labimage.Image, error) {
	key := name + "-" + kind.Suffix
	if img := m.made[key]; img != nil {
		return img, nil
	}
	img, err := m.find(kind, key, plain)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	m.made[key] = img
	return img, nil
}

func (m *Maker) find(kind Kind, key string, plain *labimage.Image) (*labimage.Image, error) {
	if m.r.Corpora != "" {
		img, err := labimage.Open(filepath.Join(m.r.Corpora, "built", key))
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("%w: not in CORPORA", ErrNone)
		}
		return img, err
	}
	m.r.Logf("making %s", key)
	return m.Make(kind, filepath.Join(m.r.Dir, "foreign", key), plain, nil)
}

// Make makes an image with indexes of a kind out of an ordinary one in a directory. The
// files of first, paths from the root, are what a start of the image reads, as eStargz may
// know it. The error wraps ErrNone if that cannot be compiled here.
func (m *Maker) Make(kind Kind, dir string, plain *labimage.Image, first []string) (*labimage.Image, error) {
	if kind == SOCI {
		return m.withZtocs(dir, plain)
	}
	mediaType := map[Kind]string{EStargz: ocispec.MediaTypeImageLayerGzip, ZstdChunked: ocispec.MediaTypeImageLayerZstd}[kind]
	return plain.Convert(dir, func(from, to string) (labimage.Converted, error) {
		c, err := m.Convert(kind.Suffix, from, to, first...)
		c.MediaType = mediaType
		return c, err
	})
}

// Convert converts one layer with testdata/foreign, which knows the form, into a file, in
// which those of some files that it has come first. The error wraps ErrNone if that cannot
// be compiled here.
func (m *Maker) Convert(form, from, to string, first ...string) (labimage.Converted, error) {
	program, err := m.Compile()
	if errors.Is(err, runner.ErrNotBuilt) {
		err = fmt.Errorf("%w: %w", ErrNone, err)
	}
	if err != nil {
		return labimage.Converted{}, err
	}
	out, err := m.r.Output(program, append([]string{"convert", form, from, to}, first...)...)
	if err != nil {
		return labimage.Converted{}, err
	}
	var said struct {
		Annotations map[string]string `json:"annotations"`
		DiffID      digest.Digest     `json:"diff_id"`
	}
	err = json.Unmarshal([]byte(out), &said)
	return labimage.Converted{Annotations: said.Annotations, DiffID: said.DiffID}, err
}

// withZtocs is an image with ztocs of imgfs, which have the places and digests that
// SOCI's own have.
func (m *Maker) withZtocs(dir string, plain *labimage.Image) (*labimage.Image, error) {
	source := soci.Source{Ztocs: map[digest.Digest][]byte{}, Platform: ocispec.Platform{Architecture: runtime.GOARCH, OS: "linux"}}
	var err error
	if source.Manifest, err = os.ReadFile(plain.Blob(plain.Top.Digest)); err != nil {
		return nil, err
	}
	for i, l := range plain.Manifest.Layers {
		if source.Ztocs[l.Digest], err = m.ztoc(plain, i); err != nil {
			return nil, err
		}
	}
	c, err := soci.Convert(source)
	if err != nil {
		return nil, err
	}
	var documents [][]byte
	for _, d := range append(c.Blobs, c.Manifests...) {
		documents = append(documents, d.Data)
	}
	return plain.With(dir, c.Manifests[len(c.Manifests)-1].Descriptor, documents...)
}

// ztoc makes the ztoc of a layer.
func (m *Maker) ztoc(img *labimage.Image, i int) ([]byte, error) {
	l := Layer(img, i)
	f, err := os.Open(img.Blob(l.Digest))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return soci.Build(m.r.Ctx, l, f, nil)
}

// Layer describes a layer of an image.
func Layer(img *labimage.Image, i int) layerindex.Layer {
	l := img.Manifest.Layers[i]
	return layerindex.Layer{Digest: l.Digest, Size: l.Size, DiffID: img.DiffIDs[i]}
}

// Ztoc returns the ztoc that an image has of one of its layers. The error wraps ErrNone
// if it has none.
func Ztoc(img *labimage.Image, layer digest.Digest) ([]byte, error) {
	d := digest.Digest(img.Manifest.Annotations[soci.AnnotationIndex])
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("the annotation %s: %w", soci.AnnotationIndex, err)
	}
	text, err := os.ReadFile(img.Blob(d))
	if err != nil {
		return nil, err
	}
	index, err := soci.ParseIndex(text)
	if err != nil {
		return nil, err
	}
	files, ok := index.Layers[layer]
	if !ok {
		return nil, fmt.Errorf("%w: a ztoc of %s", ErrNone, layer)
	}
	return os.ReadFile(img.Blob(files.Ztoc.Digest))
}
