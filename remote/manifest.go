package remote

import (
	"bytes"
	"cmp"
	// digest.Digest.Validate knows an algorithm only if it is linked in.
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Limits of the size of a manifest, image index or config, and of all of an
// image. Registries commonly take 4 MiB of manifest; the largest known index has
// 0.4 MB.
const (
	maxManifestSize = 8 << 20
	maxConfigSize   = 16 << 20
	maxDocuments    = 32 << 20
)

// maxLayers is how many layers an image may have; docker makes up to 127.
const maxLayers = 4096

// maxImageSize is what all layers of an image may measure: no sum of their
// sizes overflows, and none is inexact in JSON.
const maxImageSize = 1 << 53

// maxClaim bounds what a layer may be said to measure: beyond it is no size that was
// written by mistake.
const maxClaim = 1 << 60

// A document holds what tells the kinds of manifest apart.
type document struct {
	SchemaVersion int    `json:"schemaVersion"`
	MediaType     string `json:"mediaType"`
	Manifests     given  `json:"manifests"`
	Config        given  `json:"config"`
	Layers        given  `json:"layers"`
	FSLayers      given  `json:"fsLayers"`
}

// given says that a document has a member that is not null. Of members that
// come twice, in whatever case, the last counts for encoding/json, and so for
// docker, containerd, podman and here; but what was there once was there: a
// null behind it does not make the document one that can be read in one way.
type given bool

// UnmarshalJSON notes that there is a value.
func (g *given) UnmarshalJSON(value []byte) error {
	if !bytes.Equal(value, []byte("null")) {
		*g = true
	}
	return nil
}

// classify returns what content is and its media type, given the type that
// its descriptor states. The descriptor may state nothing useful, and old
// OCI manifests have no mediaType; but when both do, they must mean the same
// kind, and the content must not be readable as both (CVE-2021-41190).
func classify(stated string, content []byte) (kind, string, error) {
	var doc document
	if err := json.Unmarshal(content, &doc); err != nil {
		return 0, "", fmt.Errorf("%w: it is not JSON of a manifest: %w", ErrUnsupported, JSONError(err))
	}
	stated = bareMediaType(stated)
	k, mediaType := kindOf(doc.MediaType), doc.MediaType
	if doc.MediaType == "" {
		k, mediaType = kindOf(stated), stated
	}
	if k == kindUnknown && sayNothing(mediaType) {
		k, mediaType = doc.guess()
	}
	switch {
	case doc.SchemaVersion == 1, bool(doc.FSLayers), k == kindSchema1, kindOf(stated) == kindSchema1:
		return 0, "", fmt.Errorf("%w: it is a docker schema 1 manifest; push the image again with a current tool", ErrUnsupported)
	case k == kindUnknown:
		return 0, "", fmt.Errorf("%w: media type %s is neither an image manifest nor an image index", ErrUnsupported, quote(mediaType))
	case kindOf(stated) != kindUnknown && kindOf(stated) != k:
		return 0, "", fmt.Errorf("%w: it is described as %s and calls itself %s", ErrUnsupported, quote(stated), quote(mediaType))
	case k == kindManifest && bool(doc.Manifests):
		return 0, "", fmt.Errorf("%w: it is an image manifest, yet lists manifests", ErrUnsupported)
	case k == kindIndex && bool(doc.Layers || doc.Config):
		return 0, "", fmt.Errorf("%w: it is an image index, yet has layers or a config", ErrUnsupported)
	}
	return k, mediaType, nil
}

// guess returns what a document is that has no media type.
func (d *document) guess() (kind, string) {
	switch {
	case bool(d.Manifests):
		return kindIndex, ocispec.MediaTypeImageIndex
	case bool(d.Config || d.Layers):
		return kindManifest, ocispec.MediaTypeImageManifest
	}
	return kindUnknown, d.MediaType
}

// JSONError says of a member of the wrong kind which one it is, where
// encoding/json speaks of Go's types.
func JSONError(err error) error {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return err
	}
	if wrong.Field == "" {
		return fmt.Errorf("it is a JSON %s", wrong.Value)
	}
	return fmt.Errorf("its %s cannot be a JSON %s", wrong.Field, wrong.Value)
}

// eachDescriptor calls f with each descriptor of a JSON array, or with what is
// wrong with it, until f returns an error. It holds one at a time. member is the
// array's name.
func eachDescriptor(member string, array json.RawMessage, f func(ocispec.Descriptor, error) error) error {
	if len(array) == 0 || bytes.Equal(array, []byte("null")) {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(array))
	if start, err := dec.Token(); err != nil || start != json.Delim('[') {
		return f(ocispec.Descriptor{}, fmt.Errorf("%w: its %s are no JSON array", ErrUnsupported, member))
	}
	for dec.More() {
		var desc Described
		err := dec.Decode(&desc)
		if err != nil {
			err = fmt.Errorf("%w: %w", ErrUnsupported, JSONError(err))
		}
		if err := cmp.Or(f(ocispec.Descriptor(desc), err), err); err != nil {
			return err
		}
	}
	return nil
}

// A Described is a descriptor as JSON has it, whose size is only a claim: a number
// that is too large for 64 bits is the largest one.
type Described ocispec.Descriptor

// UnmarshalJSON implements json.Unmarshaler.
func (d *Described) UnmarshalJSON(text []byte) error {
	var desc struct {
		ocispec.Descriptor
		Size        claim       `json:"size"`
		Annotations annotations `json:"annotations"`
	}
	if err := json.Unmarshal(text, &desc); err != nil {
		return err
	}
	desc.Descriptor.Size, desc.Descriptor.Annotations = int64(desc.Size), desc.Annotations
	*d = Described(desc.Descriptor)
	return nil
}

// A claim is a size that a descriptor states.
type claim int64

// UnmarshalJSON implements json.Unmarshaler.
func (c *claim) UnmarshalJSON(number []byte) error {
	err := json.Unmarshal(number, (*int64)(c))
	var n float64
	if err != nil && json.Unmarshal(number, &n) == nil {
		switch {
		case n >= math.MaxInt64:
			*c, err = math.MaxInt64, nil
		case n <= math.MinInt64:
			*c, err = math.MinInt64, nil
		}
	}
	return err
}

// parseManifest reads an image manifest and checks that each part can be
// mounted.
func parseManifest(content []byte) (*ocispec.Manifest, error) {
	m, err := readManifest(content)
	if err != nil {
		return nil, err
	}
	if t := m.Config.MediaType; !isImageConfig(t) {
		return nil, fmt.Errorf("%w: its config has media type %s: %s", ErrUnsupported, quote(t), describeManifest(m))
	}
	for i, l := range m.Layers {
		if err := checkForm(l.Digest); err != nil {
			return nil, fmt.Errorf("%w: layer %d: digest %s: %w", ErrUnsupported, i, quote(l.Digest.String()), err)
		}
		if !isLayer(l.MediaType) {
			return nil, fmt.Errorf("%w: layer %s has media type %s: %s", ErrUnsupported, l.Digest, quote(l.MediaType), describeLayer(l.MediaType))
		}
	}
	return m, nil
}

// readManifest reads what imgfs needs of an image manifest. It refuses one that
// lists more layers than any image has, before all of them are in memory.
func readManifest(content []byte) (*ocispec.Manifest, error) {
	return readLayers(content, maxLayers)
}

// readLayers is readManifest for a manifest of up to most layers. What a subject is
// no descriptor of is none.
func readLayers(content []byte, most int) (*ocispec.Manifest, error) {
	var doc struct {
		ArtifactType string          `json:"artifactType"`
		Config       Described       `json:"config"`
		Layers       json.RawMessage `json:"layers"`
		Subject      json.RawMessage `json:"subject"`
		Annotations  annotations     `json:"annotations"`
	}
	if err := json.Unmarshal(content, &doc); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, JSONError(err))
	}
	m := &ocispec.Manifest{ArtifactType: doc.ArtifactType, Config: ocispec.Descriptor(doc.Config), Annotations: doc.Annotations}
	var subject Described
	if json.Unmarshal(doc.Subject, &subject) == nil && subject.Digest != "" {
		m.Subject = (*ocispec.Descriptor)(&subject)
	}
	said := len(m.Annotations)
	err := eachDescriptor("layers", doc.Layers, func(desc ocispec.Descriptor, err error) error {
		said += len(desc.Annotations)
		switch {
		case err != nil:
			return err
		case len(m.Layers) == most:
			return fmt.Errorf("%w: more than %d layers", ErrUnsupported, most)
		case said > maxAllAnnotations:
			return fmt.Errorf("%w: more than %d annotations", ErrUnsupported, maxAllAnnotations)
		}
		m.Layers = append(m.Layers, desc)
		return nil
	})
	return m, err
}

// checkForm refuses what is no digest. One of an algorithm that nobody here knows
// is one: it can be printed, if not read.
func checkForm(d digest.Digest) error {
	if err := d.Validate(); err != nil && !errors.Is(err, digest.ErrDigestUnsupported) {
		return err
	}
	return nil
}

// A config is what imgfs reads of an image's config.
//
// It is OCI's config.md with docker_version, which docker adds.
type config struct {
	Created       *time.Time `json:"created"`
	DockerVersion string     `json:"docker_version"`
	Architecture  string     `json:"architecture"`
	OS            string     `json:"os"`
	OSVersion     string     `json:"os.version"`
	OSFeatures    []string   `json:"os.features"`
	Variant       string     `json:"variant"`
	Config        struct {
		Env    []string          `json:"Env"`
		Labels map[string]string `json:"Labels"`
	} `json:"config"`
	RootFS struct {
		Type    string          `json:"type"`
		DiffIDs []digest.Digest `json:"diff_ids"`
	} `json:"rootfs"`
}

// parseConfig reads the config of an image.
func parseConfig(content []byte) (*config, error) {
	c := new(config)
	if err := json.Unmarshal(content, c); err != nil {
		return nil, fmt.Errorf("%w: it is not JSON of an image's config: %w", ErrUnsupported, JSONError(err))
	}
	return c, nil
}

// check compares c with a manifest of so many layers.
func (c *config) check(layers int) error {
	if t := c.RootFS.Type; t != "" && t != "layers" {
		return fmt.Errorf("%w: rootfs has type %s instead of layers", ErrUnsupported, quote(t))
	}
	if n := len(c.RootFS.DiffIDs); n != layers {
		return fmt.Errorf("%w: %d diff_ids for %d layers", ErrUnsupported, n, layers)
	}
	for i, d := range c.RootFS.DiffIDs {
		if err := checkForm(d); err != nil {
			return fmt.Errorf("%w: diff_id %d: %s: %w", ErrUnsupported, i, quote(d.String()), err)
		}
	}
	return nil
}

func (c *config) platform() ocispec.Platform {
	return ocispec.Platform{
		Architecture: c.Architecture,
		OS:           c.OS,
		OSVersion:    c.OSVersion,
		OSFeatures:   c.OSFeatures,
		Variant:      c.Variant,
	}
}
