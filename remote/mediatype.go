package remote

import (
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types, from the distribution specifications "Image Manifest
// V 2, Schema 1" and "Schema 2".
const (
	mediaTypeDockerManifest      = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeDockerList          = "application/vnd.docker.distribution.manifest.list.v2+json"
	mediaTypeDockerConfig        = "application/vnd.docker.container.image.v1+json"
	mediaTypeDockerLayer         = "application/vnd.docker.image.rootfs.diff.tar"
	mediaTypeDockerForeignLayer  = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	mediaTypeDockerSchema1       = "application/vnd.docker.distribution.manifest.v1+json"
	mediaTypeDockerSchema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	mediaTypeNonDistributable    = "application/vnd.oci.image.layer.nondistributable.v1.tar"
)

// A kind is what a document in place of a manifest turns out to be.
type kind int

const (
	kindUnknown kind = iota
	kindManifest
	kindIndex
	kindSchema1
)

// kindOf returns the kind that mediaType says.
func kindOf(mediaType string) kind {
	switch mediaType {
	case ocispec.MediaTypeImageManifest, mediaTypeDockerManifest:
		return kindManifest
	case ocispec.MediaTypeImageIndex, mediaTypeDockerList:
		return kindIndex
	case mediaTypeDockerSchema1, mediaTypeDockerSchema1Signed:
		return kindSchema1
	}
	return kindUnknown
}

// sayNothing tells whether mediaType is what servers and layouts give when
// they know no better.
func sayNothing(mediaType string) bool {
	switch mediaType {
	case "", "application/json", "application/octet-stream", "text/plain", "text/html":
		return true
	}
	return false
}

// bareMediaType removes parameters such as "; charset=utf-8".
func bareMediaType(mediaType string) string {
	bare, _, _ := strings.Cut(mediaType, ";")
	return strings.TrimSpace(bare)
}

// isImageConfig tells whether mediaType may be the config of an image. Like
// docker it takes the types that say nothing: old registries and builders
// wrote them.
func isImageConfig(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageConfig || mediaType == mediaTypeDockerConfig || sayNothing(mediaType)
}

// isLayer tells whether mediaType is a layer that imgfs reads: a tar, plain
// or packed with gzip or zstd.
func isLayer(mediaType string) bool {
	switch mediaType {
	case ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
		mediaTypeDockerLayer, mediaTypeDockerLayer + ".gzip", mediaTypeDockerLayer + ".zstd":
		return true
	}
	return false
}

// describeLayer says in words what a layer is that isLayer refuses.
func describeLayer(mediaType string) string {
	switch {
	case mediaType == "":
		return "a layer without a media type"
	case strings.HasSuffix(mediaType, "+encrypted"):
		return "an encrypted layer"
	case strings.HasPrefix(mediaType, mediaTypeDockerForeignLayer), strings.HasPrefix(mediaType, mediaTypeNonDistributable):
		return "a foreign layer, which the registry need not hold"
	}
	return describeArtifact(mediaType)
}

// describeArtifact says in words what mediaType belongs to, as far as it is
// known; it is the type of a config, a layer, or an artifact.
func describeArtifact(mediaType string) string {
	for _, known := range [...]struct{ part, words string }{
		{"squashfs", "a squashfs file system"},
		{"erofs", "an EROFS file system"},
		{"nydus", "a part of a Nydus image"},
		{"cncf.helm", "a Helm chart"},
		{"wasm", "a WebAssembly module"},
		{"sylabs.sif", "a Singularity image file"},
		{"docker.plugin", "a docker plugin"},
		{"docker.compose", "a compose project"},
		{"docker.ai", "a model"},
		{"cncf.model", "a model"},
		{"ollama", "a model"},
		{"buildkit.cacheconfig", "a build cache"},
		{"cncf.flux", "a Flux artifact"},
		{"amazon.soci", "a SOCI index"},
		{"cosign", "a signature"},
		{"sigstore", "a signature"},
		{"cncf.notary", "a signature"},
		{"in-toto", "an attestation"},
		{"spdx", "a bill of materials"},
		{"cyclonedx", "a bill of materials"},
		{"oci.empty", "an artifact"},
	} {
		if strings.Contains(mediaType, known.part) {
			return known.words
		}
	}
	return notAnImage
}

// notAnImage is what describeArtifact says of what it does not know.
const notAnImage = "not part of a container image"

// describeManifest says in words what a manifest is that is no image's.
func describeManifest(m *ocispec.Manifest) string {
	config := describeArtifact(m.Config.MediaType)
	if m.ArtifactType == "" || config != notAnImage && config != "an artifact" {
		return config
	}
	if words := describeArtifact(m.ArtifactType); words != notAnImage {
		return words
	}
	return "an artifact of type " + quote(m.ArtifactType)
}

// isArtifact tells whether a manifest is no image's: by its config, by what it has
// in place of layers, or because it says so and has neither.
func isArtifact(m *ocispec.Manifest) bool {
	if !isImageConfig(m.Config.MediaType) || m.ArtifactType != "" && len(m.Layers) == 0 {
		return true
	}
	return slices.ContainsFunc(m.Layers, func(l ocispec.Descriptor) bool {
		return !isLayer(l.MediaType) && describeLayer(l.MediaType) == describeArtifact(l.MediaType)
	})
}
