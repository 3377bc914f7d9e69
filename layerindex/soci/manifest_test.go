package soci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// manifestV1 is one of SOCI 0.16.1, shortened.
const manifestV1 = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
"config":{"mediaType":"application/vnd.amazon.soci.index.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},
"layers":[{"mediaType":"application/octet-stream","digest":"sha256:899ffa14139a6ea611ab3bba231d957cab629982ac6d793d7000e60a9d94c99a","size":106288,
"annotations":{"com.amazon.soci.image-layer-digest":"sha256:8fe2d67c38c20aaf6f1b6a7a3cab95bb497a0ca686c9e37f03310bb373e2d088","com.amazon.soci.span-size":"4194304"}},
{"mediaType":"application/vnd.amazon.soci.prefetch.v1+json","digest":"sha256:fae7e200f7ac3515abf897d7c407ef9bac9b5b2e736de1b1f733339ecec84dee","size":66,
"annotations":{"com.amazon.soci.image-layer-digest":"sha256:8fe2d67c38c20aaf6f1b6a7a3cab95bb497a0ca686c9e37f03310bb373e2d088"}}],
"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:cc7e6afe2b654df5fc00f6b04bdb052ea04727428372a987e8f6268335dc0759","size":629}}`

// TestParseIndex reads the manifest of either version, and what comes twice once.
func TestParseIndex(t *testing.T) {
	t.Parallel()
	const layer, ztoc = digest.Digest("sha256:8fe2d67c38c20aaf6f1b6a7a3cab95bb497a0ca686c9e37f03310bb373e2d088"), digest.Digest("sha256:899ffa14139a6ea611ab3bba231d957cab629982ac6d793d7000e60a9d94c99a")
	m, err := ParseIndex([]byte(manifestV1))
	if err != nil {
		t.Fatal(err)
	}
	if f := m.Layers[layer]; m.Version != 1 || m.Subject == nil || m.Subject.Size != 629 || len(m.Layers) != 1 || f.Ztoc.Digest != ztoc || f.Ztoc.Size != 106288 || f.Prefetch == nil || f.Prefetch.Size != 66 {
		t.Errorf("%+v", m)
	}
	second := strings.ReplaceAll(manifestV1, "index.v1+json", "index.v2+json")
	if m, err = ParseIndex([]byte(second)); err != nil || m.Version != 2 || m.Subject != nil || m.Layers[layer].Ztoc.Digest != ztoc {
		t.Errorf("%+v, %v", m, err)
	}
	for name, c := range map[string]struct {
		change func(m *ocispec.Manifest)
		layers int
	}{
		"the same layer twice": {func(m *ocispec.Manifest) {
			again := m.Layers[0]
			again.Digest = digest.FromString("another ztoc")
			m.Layers = append(m.Layers, again)
		}, 1},
		"a file of another kind":   {func(m *ocispec.Manifest) { m.Layers[1].MediaType = "application/vnd.amazon.soci.later+json" }, 1},
		"spans without a ztoc":     {func(m *ocispec.Manifest) { m.Layers = m.Layers[1:] }, 0},
		"no layers":                {func(m *ocispec.Manifest) { m.Layers = nil }, 0},
		"an artifact type as well": {func(m *ocispec.Manifest) { m.ArtifactType = ArtifactTypeV1 }, 1},
		"a layer by another digest": {func(m *ocispec.Manifest) {
			m.Layers[0].Annotations[annotationLayer] = "sha512:" + strings.Repeat("0", 128)
		}, 1},
	} {
		m, err := ParseIndex(changed(t, c.change))
		if err != nil || len(m.Layers) != c.layers {
			t.Errorf("%s: %+v, %v", name, m, err)
		} else if f, ok := m.Layers[layer]; ok && f.Ztoc.Digest != ztoc {
			t.Errorf("%s: ztoc %s", name, f.Ztoc.Digest)
		}
	}
}

// changed returns manifestV1 with a change.
func changed(t testing.TB, change func(m *ocispec.Manifest)) []byte {
	t.Helper()
	var m ocispec.Manifest
	if err := json.Unmarshal([]byte(manifestV1), &m); err != nil {
		t.Fatal(err)
	}
	change(&m)
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestParseRefuses: what is no SOCI document is refused.
func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for name, doc := range map[string][]byte{
		"no JSON":                []byte("no JSON"),
		"an image":               changed(t, func(m *ocispec.Manifest) { m.Config.MediaType = ocispec.MediaTypeImageConfig }),
		"version 3":              changed(t, func(m *ocispec.Manifest) { m.Config.MediaType = "application/vnd.amazon.soci.index.v3+json" }),
		"no layer's digest":      changed(t, func(m *ocispec.Manifest) { m.Layers[0].Annotations = nil }),
		"a digest that is none":  changed(t, func(m *ocispec.Manifest) { m.Layers[0].Digest = "sha256:../../x" }),
		"a ztoc by sha512":       changed(t, func(m *ocispec.Manifest) { m.Layers[0].Digest = "sha512:" + digest.Digest(strings.Repeat("0", 128)) }),
		"a ztoc of 151 MiB":      changed(t, func(m *ocispec.Manifest) { m.Layers[0].Size = 151 << 20 }),
		"a ztoc of -1 byte":      changed(t, func(m *ocispec.Manifest) { m.Layers[0].Size = -1 }),
		"spans of 5 MiB":         changed(t, func(m *ocispec.Manifest) { m.Layers[1].Size = 5 << 20 }),
		"a manifest of 4 MiB, +": append([]byte(manifestV1), bytes.Repeat([]byte(" "), maxManifest)...),
	} {
		if m, err := ParseIndex(doc); !errors.Is(err, ErrManifest) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	for _, doc := range []string{
		"", "[]", `{"version":"2.0"}`, `{"version":"1.0","prefetch_spans":[{"start_span":-1,"end_span":2}]}`,
		`{"version":"1.0","prefetch_spans":[{"start_span":3,"end_span":2}]}`, `{"version":"1.0","prefetch_spans":[{"start_span":0,"end_span":2147483648}]}`,
		`{"version":"1.0","prefetch_spans":[` + strings.Repeat(`{},`, maxRanges) + `{}]}`, strings.Repeat(" ", maxManifest+1),
	} {
		if list, err := ParsePrefetch([]byte(doc)); !errors.Is(err, ErrManifest) {
			t.Errorf("%.80s: %v, %v", doc, list, err)
		}
	}
	list, err := ParsePrefetch([]byte(`{"version":"1.0","prefetch_spans":[{"start_span":0,"end_span":2},{"start_span":7,"end_span":7,"priority":3}]}`))
	if err != nil || !slices.Equal(list, []SpanRange{{0, 2}, {7, 7}}) {
		t.Errorf("%v, %v", list, err)
	}
}

// dockerManifest is that of an image of two layers.
func dockerManifest(t testing.TB, first, second digest.Digest) []byte {
	t.Helper()
	const docker = "application/vnd.docker.distribution.manifest.v2+json"
	var m ocispec.Manifest
	m.SchemaVersion, m.MediaType = 2, docker
	m.Config = ocispec.Descriptor{MediaType: "application/vnd.docker.container.image.v1+json", Digest: digest.FromString("config"), Size: 6}
	for _, d := range []digest.Digest{first, second} {
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: "application/vnd.docker.image.rootfs.diff.tar.gzip", Digest: d, Size: 1})
	}
	m.Annotations = map[string]string{"kept": "yes"}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestConvert: the image index leads to the image, whose manifest names the SOCI index,
// which names the ztocs; all of it is what SOCI reads.
func TestConvert(t *testing.T) {
	t.Parallel()
	first, second := digest.FromString("first"), digest.FromString("second")
	amd := Source{Manifest: dockerManifest(t, first, second), Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, Ztocs: map[digest.Digest][]byte{second: []byte("a ztoc")}, SpanSize: 1 << 20}
	arm := Source{Manifest: dockerManifest(t, second, first), Platform: ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}, Ztocs: map[digest.Digest][]byte{first: []byte("one"), second: []byte("two")}, Tool: "a test"}
	c, err := Convert(amd, arm)
	if err != nil {
		t.Fatal(err)
	}
	byDigest := map[digest.Digest]Document{}
	for _, d := range append(slices.Clone(c.Blobs), c.Manifests...) {
		if digest.FromBytes(d.Data) != d.Digest || int64(len(d.Data)) != d.Size {
			t.Errorf("%s is not of %d bytes", d.Digest, len(d.Data))
		}
		byDigest[d.Digest] = d
	}
	var top ocispec.Index
	read(t, c.Manifests[len(c.Manifests)-1].Data, &top)
	if len(top.Manifests) != 4 || top.MediaType != ocispec.MediaTypeImageIndex || top.SchemaVersion != 2 {
		t.Fatalf("%+v", top)
	}
	for i, s := range []Source{amd, arm} {
		image, index := top.Manifests[i], top.Manifests[2+i]
		if image.Platform.Architecture != s.Platform.Architecture || index.Platform.Architecture != s.Platform.Architecture || index.ArtifactType != ArtifactTypeV2 || index.Annotations[annotationImage] != image.Digest.String() {
			t.Errorf("%+v\n%+v", image, index)
		}
		var m, was ocispec.Manifest
		read(t, byDigest[image.Digest].Data, &m)
		read(t, s.Manifest, &was)
		if m.Annotations[AnnotationIndex] != index.Digest.String() || m.Annotations["kept"] != "yes" || m.Config.Digest != was.Config.Digest || m.Config.MediaType != ocispec.MediaTypeImageConfig || m.MediaType != ocispec.MediaTypeImageManifest || len(m.Layers) != 2 || m.Layers[0].Digest != was.Layers[0].Digest || m.Layers[0].MediaType != was.Layers[0].MediaType {
			t.Errorf("%+v", m)
		}
		x, err := ParseIndex(byDigest[index.Digest].Data)
		if err != nil {
			t.Fatal(err)
		}
		got := map[digest.Digest][]byte{}
		for layer, f := range x.Layers {
			got[layer] = byDigest[f.Ztoc.Digest].Data
		}
		if x.Version != 2 || !maps.EqualFunc(got, s.Ztocs, bytes.Equal) {
			t.Errorf("%+v", x)
		}
	}
	if again, err := Convert(amd, arm); err != nil || again.Manifests[4].Digest != c.Manifests[4].Digest {
		t.Errorf("the second time it is another image: %v", err)
	}
}

func read(t testing.TB, doc []byte, to any) {
	t.Helper()
	if err := json.Unmarshal(doc, to); err != nil {
		t.Fatal(err)
	}
}

// TestConvertRefuses: what is no image, and an image without ztocs, is not converted.
func TestConvertRefuses(t *testing.T) {
	t.Parallel()
	d := digest.FromString("x")
	for _, s := range []Source{
		{Manifest: []byte("{")},
		{Manifest: []byte("{}")},
		{Manifest: dockerManifest(t, d, d)},
		{Manifest: dockerManifest(t, d, d), Ztocs: map[digest.Digest][]byte{digest.FromString("of another image"): nil}},
	} {
		if c, err := Convert(s); !errors.Is(err, ErrManifest) {
			t.Errorf("%s: %+v, %v", s.Manifest, c, err)
		}
	}
}

// TestConvertLikeSOCI: of an image with ztocs of SOCI we make, byte for byte, the
// documents that "soci convert" made.
func TestConvertLikeSOCI(t *testing.T) {
	t.Parallel()
	dir := testenv.Shared("corpora", "foreign", "sink-soci-v2")
	if _, err := os.Stat(dir); err != nil {
		t.Skip("IMGFS_SHARED names no folder of images with indexes that others made")
	}
	blob := func(d digest.Digest) []byte {
		b, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", d.Encoded()))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var layout, want ocispec.Index
	b, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	read(t, b, &layout)
	read(t, blob(layout.Manifests[0].Digest), &want)
	m, err := ParseIndex(blob(want.Manifests[1].Digest))
	if err != nil {
		t.Fatal(err)
	}
	s := Source{Manifest: blob("sha256:cc7e6afe2b654df5fc00f6b04bdb052ea04727428372a987e8f6268335dc0759"), Platform: *want.Manifests[0].Platform, Ztocs: map[digest.Digest][]byte{}, Tool: "AWS SOCI CLI v0.2"}
	for layer, f := range m.Layers {
		s.Ztocs[layer] = blob(f.Ztoc.Digest)
	}
	c, err := Convert(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range c.Manifests {
		if !bytes.Equal(d.Data, blob(d.Digest)) {
			t.Errorf("%s", d.Data)
		}
	}
}

// TestRealIndex: SOCI's code reads the index manifest of Convert.
func TestRealIndex(t *testing.T) {
	t.Parallel()
	sociProgram(t)
	m := madeLayers(t)[3]
	z, err := Build(context.Background(), m.sample(nil).layer(), bytes.NewReader(m.blob), nil)
	if err != nil {
		t.Fatal(err)
	}
	layer := digest.FromBytes(m.blob)
	c, err := Convert(Source{Manifest: dockerManifest(t, layer, digest.FromString("x")), Ztocs: map[digest.Digest][]byte{layer: z}})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		ArtifactType string
		Blobs        []ocispec.Descriptor
	}
	read(t, runSOCI(t, "index", writeFile(t, t.TempDir(), "manifest", c.Manifests[0].Data)), &got)
	if got.ArtifactType != ArtifactTypeV2 || len(got.Blobs) != 1 || got.Blobs[0].Digest != digest.FromBytes(z) || got.Blobs[0].Annotations[annotationLayer] != layer.String() || got.Blobs[0].Annotations[annotationSpanSize] != "4194304" {
		t.Errorf("%+v", got)
	}
}
