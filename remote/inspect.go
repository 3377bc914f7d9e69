package remote

import (
	"encoding/json"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An Inspection is what skopeo inspect prints of an image, in its order and
// with its names, then what imgfs adds. As there, a list or map that the
// config does not have is null, and one that it has empty is empty.
type Inspection struct {
	// Name is the repository, without a tag; absent outside registries.
	Name string `json:",omitempty"`
	// Digest is that of what the reference names: of the image index, for
	// an image of several platforms.
	Digest digest.Digest
	// RepoTags holds the tags of the repository. Inspect leaves it empty.
	RepoTags      []string
	Created       *time.Time
	DockerVersion string
	Labels        map[string]string
	Architecture  string
	Os            string
	// Layers holds the digests of the layers in the manifest, the base
	// first.
	Layers     []digest.Digest
	LayersData []InspectedLayer
	Env        []string
	// ImageID is the config's digest.
	ImageID digest.Digest
	// DiffIDs holds the digests of the layers' uncompressed tars.
	DiffIDs []digest.Digest
}

// An InspectedLayer is what Inspection says of one layer.
type InspectedLayer struct {
	MIMEType    string
	Digest      digest.Digest
	Size        int64
	Annotations map[string]string
}

// Inspect describes img, which comes from Open.
func Inspect(img *Image) Inspection {
	// Open has parsed both.
	m, err := readManifest(img.Manifest)
	if err != nil {
		m = new(ocispec.Manifest)
	}
	var c config
	_ = json.Unmarshal(img.Config, &c)
	in := Inspection{
		Name:          img.Source.Repository(),
		Digest:        img.Top.Digest,
		RepoTags:      []string{},
		Created:       c.Created,
		DockerVersion: c.DockerVersion,
		Labels:        c.Config.Labels,
		Architecture:  c.Architecture,
		Os:            c.OS,
		Layers:        []digest.Digest{},
		LayersData:    []InspectedLayer{},
		Env:           c.Config.Env,
		ImageID:       img.ConfigDescriptor.Digest,
		DiffIDs:       c.RootFS.DiffIDs,
	}
	// skopeo has no "not stated" for docker's manifests.
	if c.Created == nil && img.Descriptor.MediaType == mediaTypeDockerManifest {
		in.Created = new(time.Time)
	}
	// The manifest's descriptors, not the blobs: a docker archive's blob may
	// be packed where its manifest describes the tar.
	for _, l := range m.Layers {
		in.Layers = append(in.Layers, l.Digest)
		in.LayersData = append(in.LayersData, InspectedLayer{MIMEType: l.MediaType, Digest: l.Digest, Size: l.Size, Annotations: l.Annotations})
	}
	return in
}
