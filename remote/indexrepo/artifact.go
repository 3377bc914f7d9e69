package indexrepo

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
)

// ArtifactType is the type of the manifests of published indexes.
const ArtifactType = "application/vnd.imgfs.index.v1"

// docs/published-indexes.md, "The manifest".
const (
	tagPrefix = "imgfs1."

	indexType   = "application/vnd.imgfs.index.layer.v1"
	digestsType = "application/vnd.imgfs.index.digests.v1"

	layerKey   = "io.github.imgfs.layer"
	codecKey   = "io.github.imgfs.codec"
	headerKey  = "io.github.imgfs.header"
	listingKey = "io.github.imgfs.listing"
	versionKey = "io.github.imgfs.version"
)

const (
	// maxManifest is how large a manifest may be: what registries take at least.
	maxManifest = 4 << 20
	// maxBlob is how large an index, or its digests, may be said to be.
	maxBlob = 4 << 30
)

// errFormat says that something is not a manifest of published indexes.
var errFormat = errors.New("not a manifest of published layer indexes")

// Tag returns the tag that the index of a layer has, or the indexes of the image
// that a manifest's digest names. ok is false for a digest that is not SHA-256:
// that has none.
func Tag(d digest.Digest) (tag string, ok bool) {
	if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
		return "", false
	}
	return tagPrefix + d.Algorithm().String() + "-" + d.Encoded(), true
}

// A Description is what a manifest says of the index of one layer.
type Description struct {
	Layer  digest.Digest // of the layer's blob
	Codec  string        // for people
	Header [32]byte      // the checksum of the index file's header
	// Listing is how many bytes of the index, from its beginning, are needed to
	// list the layer.
	Listing int64

	Index   ocispec.Descriptor // the index without content digests
	Digests ocispec.Descriptor // the content digests; Digest is "" if there are none
}

// same reports whether both lead to the same index.
func (d *Description) same(x *Description) bool {
	return d.Header == x.Header && d.Listing == x.Listing && d.Index.Digest == x.Index.Digest && d.Digests.Digest == x.Digests.Digest
}

// descriptors returns the rows of a manifest for the index of a layer.
func (d *Description) descriptors() []ocispec.Descriptor {
	index := ocispec.Descriptor{MediaType: indexType, Digest: d.Index.Digest, Size: d.Index.Size, Annotations: map[string]string{
		layerKey: d.Layer.String(), codecKey: d.Codec,
		headerKey: hex.EncodeToString(d.Header[:]), listingKey: strconv.FormatInt(d.Listing, 10),
	}}
	if d.Digests.Digest == "" {
		return []ocispec.Descriptor{index}
	}
	return []ocispec.Descriptor{index, {
		MediaType: digestsType, Digest: d.Digests.Digest, Size: d.Digests.Size,
		Annotations: map[string]string{layerKey: d.Layer.String()},
	}}
}

// emptyConfig is the content of the config that artifacts have.
// OCI image-spec, manifest.md, "Guidance for an Empty Descriptor".
var emptyConfig = ocispec.DescriptorEmptyJSON.Data

// encodeManifest returns the manifest of an artifact with these blobs; subject may be nil.
func encodeManifest(artifactType string, blobs []ocispec.Descriptor, subject *ocispec.Descriptor, version string) ([]byte, error) {
	m := ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: artifactType,
		Config:       ocispec.Descriptor{MediaType: ocispec.MediaTypeEmptyJSON, Digest: digest.FromBytes(emptyConfig), Size: int64(len(emptyConfig))},
		Layers:       blobs,
		Subject:      subject,
		Annotations:  map[string]string{versionKey: version},
	}
	return json.Marshal(&m)
}

// describe returns what a manifest says of the layers that it has indexes of.
// Descriptors that say nothing that can be understood are left out. The error wraps
// errFormat.
func describe(a *remote.Artifact) (map[digest.Digest]*Description, error) {
	if a.Type != ArtifactType {
		return nil, fmt.Errorf("%w: its artifact type is %q", errFormat, a.Type)
	}
	found := make(map[digest.Digest]*Description)
	for _, desc := range a.Layers {
		if desc.MediaType != indexType {
			continue
		}
		if d, ok := describeIndex(desc); ok && found[d.Layer] == nil {
			found[d.Layer] = d
		}
	}
	for _, desc := range a.Layers {
		if d := found[digest.Digest(desc.Annotations[layerKey])]; d != nil && desc.MediaType == digestsType && d.Digests.Digest == "" && isBlob(desc) {
			d.Digests = bare(desc)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w: it has no index", errFormat)
	}
	return found, nil
}

// describeIndex reads the descriptor of an index.
func describeIndex(desc ocispec.Descriptor) (*Description, bool) {
	layer := digest.Digest(desc.Annotations[layerKey])
	sum, err := hex.DecodeString(desc.Annotations[headerKey])
	listing, noNumber := strconv.ParseInt(desc.Annotations[listingKey], 10, 64)
	if _, ok := Tag(layer); !ok || err != nil || len(sum) != 32 || noNumber != nil || !isBlob(desc) || listing <= 0 || listing > desc.Size {
		return nil, false
	}
	return &Description{Layer: layer, Codec: desc.Annotations[codecKey], Header: [32]byte(sum), Listing: listing, Index: bare(desc)}, true
}

// isBlob reports whether a descriptor is of something that may be read.
func isBlob(desc ocispec.Descriptor) bool {
	return desc.Digest.Validate() == nil && desc.Size > 0 && desc.Size <= maxBlob
}

// bare returns of a descriptor what says where the blob is.
func bare(desc ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
}
