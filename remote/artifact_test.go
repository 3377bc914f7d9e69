package remote_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/ocilayout"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

func TestOpenArtifact(t *testing.T) {
	t.Parallel()
	store := sourcetest.NewStore()
	subject := digest.FromString("an image")
	content := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"application/x.y","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2,"data":"e30="},
		"layers":[{"mediaType":"application/x.blob","digest":%q,"size":7,"data":"AAAA","urls":["http://example.com"],"annotations":{"a":"b","n":1}},{"mediaType":"","digest":%q,"size":0}],
		"subject":{"mediaType":%q,"digest":%q,"size":9},"annotations":{"k":"v","bad":{},"":"empty"}}`,
		manifestType, digest.FromString("{}"), sum, sum, manifestType, subject)
	for _, stated := range []string{manifestType, "", "application/octet-stream", "application/x.y", indexType} {
		desc := store.Put(stated, []byte(content))
		a, err := remote.OpenArtifact(t.Context(), store.Source("test", desc), desc)
		if err != nil {
			t.Fatalf("stated %q: %v", stated, err)
		}
		want := &remote.Artifact{
			Descriptor:  ocispec.Descriptor{MediaType: manifestType, Digest: desc.Digest, Size: int64(len(content))},
			Manifest:    []byte(content),
			Type:        "application/x.y",
			Config:      ocispec.Descriptor{MediaType: "application/vnd.oci.empty.v1+json", Digest: digest.FromString("{}"), Size: 2},
			Layers:      []ocispec.Descriptor{{MediaType: "application/x.blob", Digest: sum, Size: 7, Annotations: map[string]string{"a": "b"}}, {Digest: sum}},
			Annotations: map[string]string{"k": "v", "": "empty"},
			Subject:     &ocispec.Descriptor{MediaType: manifestType, Digest: subject, Size: 9},
		}
		if !reflect.DeepEqual(a, want) {
			t.Errorf("stated %q: got\n%+v, want\n%+v", stated, a, want)
		}
	}
}

// An artifact without a type has that of its config, as SOCI's of version 1.
func TestArtifactType(t *testing.T) {
	t.Parallel()
	store := sourcetest.NewStore()
	for _, members := range []string{"", `"artifactType":"",`, `"artifactType":null,`, `"subject":null,`, `"subject":7,`, `"subject":{},`, `"annotations":[1],`} {
		desc := store.Put(manifestType, fmt.Appendf(nil, `{"schemaVersion":2,%s"config":{"mediaType":"application/vnd.amazon.soci.index.v1+json","digest":%q,"size":2},"layers":[]}`, members, sum))
		a, err := remote.OpenArtifact(t.Context(), store.Source("test", desc), desc)
		if err != nil {
			t.Fatalf("%s: %v", members, err)
		}
		if a.Type != "application/vnd.amazon.soci.index.v1+json" || a.Subject != nil || len(a.Annotations)+len(a.Layers) > 0 {
			t.Errorf("%s: got %+v", members, a)
		}
	}
}

func TestOpenArtifactRefuses(t *testing.T) {
	testenv.Slow(t)
	t.Parallel()
	store := sourcetest.NewStore()
	manifest := func(layers, rest string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":"a/b","digest":%q,"size":2},"layers":[%s]%s}`, sum, layers, rest)
	}
	layer := fmt.Sprintf(`{"mediaType":"a/b","digest":%q,"size":1}`, sum)
	many := strings.TrimSuffix(strings.Repeat(layer+",", 16<<10+1), ",")
	var said []string
	for i := range 1025 {
		said = append(said, fmt.Sprintf(`"%d":"x"`, i))
	}
	lot := "{" + strings.Join(said, ",") + "}"
	some := "{" + strings.Join(said[:1000], ",") + "}"
	for name, tc := range map[string]struct {
		content string
		want    error
		say     string
	}{
		"image index":               {`{"schemaVersion":2,"mediaType":"` + indexType + `","manifests":[]}`, remote.ErrUnsupported, "it is an image index"},
		"image index without type":  {`{"schemaVersion":2,"manifests":[]}`, remote.ErrUnsupported, "it is an image index"},
		"both":                      {manifest(layer, `,"manifests":[]`), remote.ErrUnsupported, ""},
		"web page":                  {"<html><body>Please log in</body></html>", remote.ErrUnsupported, "not JSON"},
		"nothing":                   {"", remote.ErrUnsupported, ""},
		"empty object":              {"{}", remote.ErrUnsupported, ""},
		"text":                      {`"manifest"`, remote.ErrUnsupported, "JSON string"},
		"schema 1":                  {`{"schemaVersion":1,"fsLayers":[]}`, remote.ErrUnsupported, "schema 1"},
		"old OCI artifact manifest": {`{"mediaType":"application/vnd.oci.artifact.manifest.v1+json","blobs":[]}`, remote.ErrUnsupported, "oci.artifact.manifest"},
		"layer without digest":      {manifest(`{"mediaType":"a/b","size":1}`, ""), remote.ErrUnsupported, "layer 0"},
		"layer with another digest": {manifest(layer+`,{"digest":"md5:00","size":1}`, ""), remote.ErrUnsupported, "layer 1"},
		"path for a digest":         {manifest(`{"digest":"../../etc/passwd","size":1}`, ""), remote.ErrUnsupported, "layer 0"},
		"negative size":             {manifest(strings.Replace(layer, `"size":1`, `"size":-1`, 1), ""), remote.ErrUnsupported, "size -1"},
		"size beyond all":           {manifest(strings.Replace(layer, `"size":1`, `"size":1e99`, 1), ""), remote.ErrUnsupported, "has size"},
		"layers are no array":       {`{"config":{"digest":"` + sum + `"},"layers":{}}`, remote.ErrUnsupported, "no JSON array"},
		"too many layers":           {manifest(many, ""), remote.ErrUnsupported, "more than 16384 layers"},
		"too many annotations":      {manifest(layer, `,"annotations":`+lot), remote.ErrUnsupported, "more than 1024 annotations"},
		"annotations of a layer":    {manifest(strings.Replace(layer, "{", `{"annotations":`+lot+",", 1), ""), remote.ErrUnsupported, "more than 1024 annotations"},
		"annotations of all":        {manifest(strings.TrimSuffix(strings.Repeat(strings.Replace(layer, "{", `{"annotations":`+some+",", 1)+",", 34), ","), ""), remote.ErrUnsupported, "more than 32768 annotations"},
		"too long":                  {manifest("", `,"x":"`+strings.Repeat("x", 4<<20)+`"`), remote.ErrUnsupported, "4194304"},
		"deep":                      {strings.Repeat(`{"config":`, 20_000), remote.ErrUnsupported, ""},
	} {
		desc := store.Put(manifestType, []byte(tc.content))
		a, err := remote.OpenArtifact(t.Context(), store.Source("test:x", desc), desc)
		if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.say) || !strings.HasPrefix(err.Error(), "test:x: ") || len(err.Error()) > 1000 {
			t.Errorf("%s: got %v and error %v, want %v with %q", name, a, err, tc.want, tc.say)
		}
	}
	for name, d := range map[string]digest.Digest{"no digest": "", "no such digest": "md5:00", "a path": "../x"} {
		if _, err := remote.OpenArtifact(t.Context(), store.Source("test:x", ocispec.Descriptor{}), ocispec.Descriptor{Digest: d}); !errors.Is(err, remote.ErrUnsupported) {
			t.Errorf("%s: got error %v, want %v", name, err, remote.ErrUnsupported)
		}
	}
	another := store.Put(manifestType, []byte(manifest(layer, "")))
	store.Replace(another.Digest, []byte(manifest("", "")))
	if _, err := remote.OpenArtifact(t.Context(), store.Source("test:x", another), another); !errors.Is(err, remote.ErrDigest) {
		t.Errorf("another content: got error %v, want %v", err, remote.ErrDigest)
	}
	huge := another
	huge.Size = 4<<20 + 1
	src := &countingSource{Source: store.Source("test:x", huge)}
	if _, err := remote.OpenArtifact(t.Context(), src, huge); !errors.Is(err, remote.ErrUnsupported) || len(src.fetched) != 0 {
		t.Errorf("stated to be too long: got error %v after %d documents", err, len(src.fetched))
	}
}

// TestImageAnnotations: the annotations of the platform's manifest are the image's,
// and those of the image index are not.
func TestImageAnnotations(t *testing.T) {
	t.Parallel()
	store := sourcetest.NewStore()
	config := store.Put(imageConfig, []byte(goodConfig))
	manifest := store.Put(manifestType, fmt.Appendf(nil, `{"schemaVersion":2,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q,"size":10,"annotations":{"l":"1","n":null}}],
		"annotations":{"own":"yes","number":7,"nested":{"own":"no"}}}`, imageConfig, config.Digest, config.Size, imageLayer, sum))
	manifest.Annotations = map[string]string{"own": "no", "of the index": "no"}
	index := store.PutJSON(indexType, map[string]any{"schemaVersion": 2, "manifests": []any{manifest}, "annotations": map[string]string{"top": "no"}})
	for _, top := range []ocispec.Descriptor{manifest, index} {
		img, err := remote.Open(t.Context(), store.Source("test", top), "")
		if err != nil {
			t.Fatal(err)
		}
		if want := map[string]string{"own": "yes"}; !reflect.DeepEqual(img.Annotations, want) {
			t.Errorf("%s: got %v, want %v", top.MediaType, img.Annotations, want)
		}
		if want := map[string]string{"l": "1"}; !reflect.DeepEqual(img.Layers[0].Annotations, want) {
			t.Errorf("%s: layer: got %v, want %v", top.MediaType, img.Layers[0].Annotations, want)
		}
	}
}

// An artifact that states the platform of its image is not taken for it, whether
// its entry says that it is one or not, and wherever it stands.
func TestArtifactOfPlatform(t *testing.T) {
	t.Parallel()
	store := sourcetest.NewStore()
	image := store.AddImage(sourcetest.Image{Platform: "linux/amd64", Layers: []sourcetest.Layer{{Content: []byte("layer")}}})
	other := store.AddImage(sourcetest.Image{Platform: "linux/amd64", Layers: []sourcetest.Layer{{Content: []byte("other")}}})
	arm := store.AddImage(sourcetest.Image{Platform: "linux/arm64"})
	soci := func(n int) ocispec.Descriptor {
		desc := store.Put(manifestType, fmt.Appendf(nil, `{"schemaVersion":2,"config":{"mediaType":"application/vnd.amazon.soci.index.v2+json","digest":%q,"size":2},"layers":[{"mediaType":"application/octet-stream","digest":%q,"size":%d}]}`, sum, sum, n))
		desc.Platform = image.Platform
		return desc
	}
	named := soci(1)
	named.ArtifactType = "application/vnd.amazon.soci.index.v2+json"
	many := []ocispec.Descriptor{}
	for i := range 70 {
		many = append(many, soci(i))
	}
	for name, tc := range map[string]struct {
		entries []ocispec.Descriptor
		want    digest.Digest // "": refused
		fetched int
	}{
		"behind":           {[]ocispec.Descriptor{image, named}, image.Digest, 3},
		"before":           {[]ocispec.Descriptor{named, image}, image.Digest, 3},
		"unnamed, behind":  {[]ocispec.Descriptor{image, soci(1)}, image.Digest, 3},
		"unnamed, before":  {[]ocispec.Descriptor{soci(1), image}, image.Digest, 4},
		"between":          {[]ocispec.Descriptor{arm, soci(1), soci(2), image, other}, image.Digest, 5},
		"for no one":       {[]ocispec.Descriptor{arm, soci(1)}, "", 2},
		"only artifacts":   {[]ocispec.Descriptor{soci(1), soci(2)}, "", 3},
		"too many of them": {append(many, image), "", 65},
	} {
		top := store.AddIndex(tc.entries...)
		src := &countingSource{Source: store.Source("test", top)}
		img, err := remote.Open(t.Context(), src, "linux/amd64")
		switch {
		case tc.want == "" && !errors.Is(err, remote.ErrUnsupported):
			t.Errorf("%s: got error %v, want %v", name, err, remote.ErrUnsupported)
		case tc.want != "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tc.want != "" && img.Descriptor.Digest != tc.want:
			t.Errorf("%s: got %s, want %s", name, img.Descriptor.Digest, tc.want)
		}
		if len(src.fetched) != tc.fetched {
			t.Errorf("%s: %d documents were fetched, want %d", name, len(src.fetched), tc.fetched)
		}
	}
}

// TestForeignArtifacts opens images and SOCI's index manifests as the tools wrote
// them.
func TestForeignArtifacts(t *testing.T) {
	t.Parallel()
	for name, ztocs := range map[string]int{"sink-soci-v2": 1, "sink-soci-v2-small": 2, "latin1-soci-v2": 1} {
		src, err := ocilayout.Open(testenv.Foreign(t, name), "")
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		img, err := remote.Open(t.Context(), src, "linux/amd64")
		if err != nil {
			t.Fatal(err)
		}
		a, err := remote.OpenArtifact(t.Context(), src, ocispec.Descriptor{Digest: digest.Digest(img.Annotations["com.amazon.soci.index-digest"])})
		if err != nil {
			t.Fatalf("%s: %v (annotations %v)", name, err, img.Annotations)
		}
		if a.Type != "application/vnd.amazon.soci.index.v2+json" || len(a.Layers) < ztocs {
			text, _ := json.Marshal(a)
			t.Errorf("%s: got %s", name, text)
		}
		for _, l := range a.Layers {
			if of := l.Annotations["com.amazon.soci.image-layer-digest"]; l.MediaType == "application/octet-stream" && of != img.Layers[0].Digest().String() && of != img.Layers[len(img.Layers)-1].Digest().String() {
				t.Errorf("%s: a ztoc of %q", name, of)
			}
		}
	}
}
