package podstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An Image is an image of a store, or one to be added.
type Image struct {
	ID       string        // digest of the config, without the algorithm, as podman has it
	Names    []string      // full ones, with tag or digest
	Manifest digest.Digest // of the platform's manifest
	Source   string        // name by which it is mounted
	Layer    string        // ID of the top layer: see Store.Mountpoint
	Layers   int           // how many it has
	Size     int64         // bytes, as Content has it
	Created  time.Time     // what its config says; zero if that is nothing
	Added    time.Time

	inside string
	config digest.Digest
	files  map[string][]byte // by the library's names; nil of one that was listed
}

// Content is what an image is made of.
type Content struct {
	Names  []string // full names; another image of the store that has one loses it
	Source string   // name by which the image is mounted
	// Manifest is the platform's manifest, and Config what it has as such, byte for byte.
	Manifest, Config []byte
	// Index is the image index that names the manifest, nil for none.
	Index []byte
	// Size is what engines show as its size, in bytes.
	Size int64
}

// maxLayers is more than an image that can run has: overlayfs takes 500 directories.
const maxLayers = 512

// NewImage returns an image that can be added to a store. It refuses what is no manifest
// with its config.
func NewImage(c *Content) (*Image, error) {
	var manifest ocispec.Manifest
	if err := json.Unmarshal(c.Manifest, &manifest); err != nil {
		return nil, fmt.Errorf("the manifest: %w", err)
	}
	var config ocispec.Image
	if err := json.Unmarshal(c.Config, &config); err != nil {
		return nil, fmt.Errorf("the config: %w", err)
	}
	d := digest.FromBytes(c.Manifest)
	if manifest.Config.Digest.Validate() != nil {
		return nil, fmt.Errorf("the manifest %s has no config", d)
	}
	if got := manifest.Config.Digest.Algorithm().FromBytes(c.Config); got != manifest.Config.Digest {
		return nil, fmt.Errorf("the config is %s, and the manifest %s has %s", got, d, manifest.Config.Digest)
	}
	n := len(config.RootFS.DiffIDs)
	switch {
	case n == 0:
		return nil, errors.New("it has no layers: there is nothing to mount")
	case n > maxLayers:
		return nil, fmt.Errorf("it has %d layers: more than %d cannot be used", n, maxLayers)
	}
	id := digest.FromBytes(c.Config).Encoded()
	img := &Image{
		ID: id, Names: c.Names, Manifest: d, Source: c.Source,
		Layer: layerIDs(id, n)[n-1], Layers: n, Size: c.Size, config: manifest.Config.Digest,
		files: map[string][]byte{
			"manifest":                      c.Manifest,
			"manifest-" + d.String():        c.Manifest,
			manifest.Config.Digest.String(): c.Config,
		},
	}
	if config.Created != nil {
		img.Created = config.Created.UTC()
	}
	if c.Index != nil && !bytes.Equal(c.Index, c.Manifest) {
		img.files["manifest-"+digest.FromBytes(c.Index).String()] = c.Index
	}
	return img, nil
}

// SetInside names a directory in the root of the mounted image: see the package's "What is
// not mounted". It reports whether the name can be that.
func (img *Image) SetInside(name string) bool {
	if name == "" || name == "." || name == ".." || strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-')
	}) {
		return false
	}
	img.inside = name
	return true
}

// Checked reports whether what leads to the image's files leads nowhere without the mount.
func (img *Image) Checked() bool { return img.inside != "" }

// layerIDs returns the IDs of an image's layers, the base first. They must be those of no other
// image, whatever layers they have in common; images with one ID have one config, which has
// the digests of all files, so they can share them. They are what the library computes from
// the digests of the layers (containers/image, storage_dest.go, commitLayer): else it makes
// layers anew when a container is committed, by reading all there is.
func layerIDs(image string, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = diffDigest(image, i).Encoded()
		if i > 0 {
			ids[i] = digest.FromString(ids[i-1] + "+" + ids[i]).Encoded()
		}
	}
	return ids
}

// diffDigest returns what the library is told to be the digest of a layer's tar.
func diffDigest(image string, n int) digest.Digest {
	return digest.FromString(fmt.Sprintf("imgfs podstore layer %d of %s", n, image))
}

// shortName returns the name of a layer in overlay/l: 26 letters and digits, as the library
// has them.
func shortName(layer string) string {
	sum := sha256.Sum256([]byte("imgfs podstore link " + layer))
	return base32.StdEncoding.EncodeToString(sum[:])[:26]
}

// fileName returns the name of a file of an image, by the library's name (containers/storage,
// utils.go, makeBigDataBaseName).
func fileName(key string) string {
	if strings.Trim(key, "abcdefghijklmnopqrstuvwxyz0123456789.") == "" {
		return key
	}
	return "=" + base64.StdEncoding.EncodeToString([]byte(key))
}

// emptyLayerSize is that of a tar without entries: its end alone.
const emptyLayerSize = 1024

// layers returns the records of the layers, the base first.
func (img *Image) layers() []layerRecord {
	all := make([]layerRecord, img.Layers)
	for i, id := range layerIDs(img.ID, img.Layers) {
		all[i] = layerRecord{ID: id, Created: img.Added, Digest: diffDigest(img.ID, i), Size: emptyLayerSize}
		if i > 0 {
			all[i].Parent = all[i-1].ID
		}
	}
	all[len(all)-1].Size = max(img.Size, emptyLayerSize) // the library takes 0 for not known
	return all
}

// record returns the image's entry of the list.
func (img *Image) record() imageRecord {
	r := imageRecord{
		ID: img.ID, Digest: img.Manifest, Names: img.Names, History: img.Names, Layer: img.Layer, Created: img.Created,
		Sizes: map[string]int64{}, Digests: map[string]digest.Digest{},
		Flags: flags{ours{Source: img.Source, Config: img.config, Inside: img.inside, Layers: img.Layers, Size: img.Size, Added: img.Added}},
	}
	for _, key := range slices.Sorted(maps.Keys(img.files)) {
		content := img.files[key]
		r.Files = append(r.Files, key)
		r.Sizes[key], r.Digests[key] = int64(len(content)), digest.FromBytes(content)
	}
	return r
}

// image returns what a record says.
func (r *imageRecord) image() *Image {
	o := &r.Flags.Ours
	return &Image{ID: r.ID, Names: r.Names, Manifest: r.Digest, Source: o.Source, Layer: r.Layer, Layers: o.Layers, Size: o.Size,
		Created: r.Created, Added: o.Added, inside: o.Inside, config: o.Config}
}
