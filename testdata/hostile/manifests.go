package hostile

import (
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// manifestAttacks claim what is not so, or list what never ends.
func manifestAttacks() []Attack {
	return []Attack{
		{Name: "layer size", Kind: "a layer of 2^63-1 bytes", Full: 1, Small: 1, Refused: "size", Make: sized(maxSize)},
		{Name: "wrong size", Kind: "a layer of 2^50 bytes", Full: 1, Small: 1, Names: one, Make: sized(1 << 50)},
		{Name: "negative size", Kind: "a layer of -1 bytes", Full: 1, Small: 1, Names: one, Make: sized(-1)},
		{Name: "image indexes", Kind: "image indexes of 8 MB in one", Make: indexes, Full: 60, Small: 6, Refused: "bytes, after"},
	}
}

// sized states a size of a layer that it does not have.
func sized(size int64) func(m *Image, n int) {
	return func(m *Image, _ int) {
		m.Gzip(func(*Tar) {})
		m.Manifest.Layers[0].Size = size
	}
}

// indexes makes an image index of indexes, of which none fits.
func indexes(m *Image, n int) {
	m.Gzip(func(*Tar) {})
	list := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for i := range n {
		part := list
		part.Annotations = map[string]string{"filler": filler(i, 8_000_000)}
		list.Manifests = append(list.Manifests, m.json(ocispec.MediaTypeImageIndex, part))
	}
	m.top = m.json(ocispec.MediaTypeImageIndex, list)
}
