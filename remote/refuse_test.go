package remote_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/opencontainers/go-digest"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/sourcetest"
)

const (
	dockerLayer  = sourcetest.DockerLayer
	imageConfig  = ocispec.MediaTypeImageConfig
	imageLayer   = ocispec.MediaTypeImageLayerGzip
	schema1      = "application/vnd.docker.distribution.manifest.v1+json"
	schema1JWS   = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	goodConfig   = `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["` + sum + `"]}}`
	manifestType = ocispec.MediaTypeImageManifest
	indexType    = ocispec.MediaTypeImageIndex
)

// manifestOf writes an image manifest with one layer of sum.
func manifestOf(store *sourcetest.Store, mediaType, configType, config, layerType string) string {
	c := store.Put(configType, []byte(config))
	field := ""
	if mediaType != "" {
		field = fmt.Sprintf(`"mediaType":%q,`, mediaType)
	}
	return fmt.Sprintf(`{"schemaVersion":2,%s"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q,"size":10}]}`,
		field, configType, c.Digest, c.Size, layerType, sum)
}

func TestOpenAccepts(t *testing.T) {
	store := sourcetest.NewStore()
	plain := manifestOf(store, manifestType, imageConfig, goodConfig, imageLayer)
	bare := manifestOf(store, "", imageConfig, goodConfig, imageLayer)
	for _, c := range []struct{ name, stated, content string }{
		{"OCI", manifestType, plain},
		{"no mediaType in the content", manifestType, bare},
		{"nothing useful stated", "application/json", plain},
		{"parameters", manifestType + "; charset=utf-8", plain},
		{"nothing anywhere", "", bare},
		{"Docker stated, OCI said", sourcetest.DockerManifest, plain},
		{"Docker", sourcetest.DockerManifest, manifestOf(store, sourcetest.DockerManifest, sourcetest.DockerConfig, goodConfig, dockerLayer+".gzip")},
		{"uncompressed Docker layer", sourcetest.DockerManifest, manifestOf(store, sourcetest.DockerManifest, sourcetest.DockerConfig, goodConfig, dockerLayer)},
		{"zstd", manifestType, manifestOf(store, manifestType, imageConfig, goodConfig, ocispec.MediaTypeImageLayerZstd)},
		{"Docker zstd", manifestType, manifestOf(store, manifestType, imageConfig, goodConfig, dockerLayer+".zstd")},
		{"uncompressed", manifestType, manifestOf(store, manifestType, imageConfig, goodConfig, ocispec.MediaTypeImageLayer)},
		{"config as octets", manifestType, manifestOf(store, manifestType, "application/octet-stream", goodConfig, imageLayer)},
		{"manifests null", manifestType, strings.Replace(plain, `"config"`, `"manifests":null,"config"`, 1)},
		{"embedded config", manifestType, strings.Replace(plain, `"config":{`, `"config":{"data":"e30=","urls":["http://example.com"],`, 1)},
		{"no type of rootfs", manifestType, manifestOf(store, manifestType, imageConfig, `{"rootfs":{"diff_ids":["`+sum+`"]}}`, imageLayer)},
		{"unknown members", manifestType, manifestOf(store, manifestType, imageConfig, strings.Replace(goodConfig, "{", `{"x":[1],"config":null,`, 1), imageLayer)},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := &countingSource{Source: store.Source("test", store.Put(c.stated, []byte(c.content)))}
			if _, err := remote.Open(t.Context(), src, ""); err != nil {
				t.Errorf("%s: %v", c.content, err)
			}
		})
	}
}

// TestMembersTwice: of members that come twice the last counts, in whatever
// case, as for docker, containerd and podman, which read them with the same
// package; what a scanner is shown is what they run.
func TestMembersTwice(t *testing.T) {
	store := sourcetest.NewStore()
	plain := manifestOf(store, manifestType, imageConfig, goodConfig, imageLayer)
	other := strings.Repeat("1", 64)
	layers := func(member string) string {
		return fmt.Sprintf(`,%q:[{"mediaType":%q,"digest":"sha256:%s","size":10}]}`, member, imageLayer, other)
	}
	for _, member := range []string{"layers", "LAYERS", "layer\u017f"} {
		content := strings.TrimSuffix(plain, "}") + layers(member)
		img, err := remote.Open(t.Context(), store.Source("test", store.Put(manifestType, []byte(content))), "")
		if err != nil {
			t.Fatalf("%s: %v", member, err)
		}
		var theirs ocispec.Manifest
		if err := json.Unmarshal([]byte(content), &theirs); err != nil {
			t.Fatal(err)
		}
		if got, want := img.Layers[0].Digest(), theirs.Layers[0].Digest; got != want || want.Encoded() != other {
			t.Errorf("%s: the layer is %s, want %s as for encoding/json, the last", member, got, want)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	store := sourcetest.NewStore()
	plain := manifestOf(store, manifestType, imageConfig, goodConfig, imageLayer)
	config := func(text string) string { return manifestOf(store, manifestType, imageConfig, text, imageLayer) }
	configType := func(mediaType string) string { return manifestOf(store, manifestType, mediaType, "{}", imageLayer) }
	layer := func(mediaType string) string {
		return manifestOf(store, manifestType, imageConfig, goodConfig, mediaType)
	}
	says := func(mediaType, words string) string {
		return fmt.Sprintf("layer %s has media type %q: %s", sum, mediaType, words)
	}
	edit := func(old, replacement string) string {
		if !strings.Contains(plain, old) {
			t.Fatalf("%q is not in %q", old, plain)
		}
		return strings.Replace(plain, old, replacement, 1)
	}
	for _, c := range []struct{ name, stated, content, says string }{
		{"schema 1", schema1, `{"schemaVersion":1,"name":"x","fsLayers":[],"history":[]}`, "docker schema 1"},
		{"schema 1 signed", schema1JWS, `{"schemaVersion":1,"signatures":[]}`, "docker schema 1"},
		{"schema 1, JSON stated", "application/json", `{"schemaVersion":1}`, "docker schema 1"},
		{"schema 1, OCI stated", manifestType, `{"schemaVersion":1,"fsLayers":[{"blobSum":"x"}]}`, "docker schema 1"},
		{"schema 1 by its layers", manifestType, `{"fsLayers":[{"blobSum":"x"}]}`, "docker schema 1"},
		{"not JSON", manifestType, "<html>", "not JSON"},
		{"cut", manifestType, plain[:len(plain)-1], "not JSON"},
		{"two documents", manifestType, plain + plain, "not JSON"},
		{"an array", manifestType, "[]", "not JSON"},
		{"null", "", "null", "neither"},
		{"nothing in it", "", "{}", "neither"},
		{"OCI artifact manifest", "application/vnd.oci.artifact.manifest.v1+json", `{"mediaType":"application/vnd.oci.artifact.manifest.v1+json"}`, "application/vnd.oci.artifact.manifest.v1+json"},
		{"index said, manifest stated", manifestType, `{"mediaType":"` + indexType + `","manifests":[]}`, "calls itself"},
		{"manifest said, index stated", indexType, plain, "calls itself"},
		{"manifests in a manifest", manifestType, edit(`"config"`, `"manifests":[],"config"`), "yet lists manifests"},
		{"manifests in a manifest, taken back", manifestType, edit(`"config"`, `"manifests":[],"MANIFESTS":null,"config"`), "yet lists manifests"},
		{"layers in an index, taken back", indexType, `{"manifests":[],"Layers":[],"layers":null}`, "yet has layers"},
		{"layers in an index, in capitals", indexType, `{"manifests":[],"LAYERS":[]}`, "yet has layers"},
		{"layers in an index", indexType, `{"manifests":[],"layers":[]}`, "yet has layers"},
		{"config in an index", indexType, `{"manifests":[],"config":{}}`, "yet has layers or a config"},
		{"both and no type", "", `{"manifests":[],"layers":[]}`, "yet has layers"},
		{"index of the wrong form", indexType, `{"manifests":{"a":1}}`, "image index"},
		{"manifest of the wrong form", manifestType, `{"layers":7}`, "manifest"},
		{"no layers", manifestType, edit(plain[strings.Index(plain, `"layers"`):], `"layers":[]}`), "1 diff_ids for 0 layers"},
		{"Helm chart", manifestType, configType("application/vnd.cncf.helm.config.v1+json"), "a Helm chart"},
		{"WebAssembly", manifestType, configType("application/vnd.wasm.config.v0+json"), "a WebAssembly module"},
		{"Docker plugin", manifestType, configType("application/vnd.docker.plugin.v1+json"), "a docker plugin"},
		{"empty config", manifestType, configType("application/vnd.oci.empty.v1+json"), "an artifact"},
		{"unknown config", manifestType, configType("application/vnd.example"), `"application/vnd.example"`},
		{"foreign Docker layer", manifestType, layer("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"), says("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "a foreign layer")},
		{"non-distributable layer", manifestType, layer("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"), says("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "a foreign layer")},
		{"encrypted layer", manifestType, layer("application/vnd.oci.image.layer.v1.tar+gzip+encrypted"), says("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "an encrypted layer")},
		{"squashfs layer", manifestType, layer("application/vnd.sylabs.image.layer.v1.squashfs"), says("application/vnd.sylabs.image.layer.v1.squashfs", "a squashfs file system")},
		{"signature", manifestType, layer("application/vnd.dev.cosign.simplesigning.v1+json"), says("application/vnd.dev.cosign.simplesigning.v1+json", "a signature")},
		{"attestation", manifestType, layer("application/vnd.in-toto+json"), says("application/vnd.in-toto+json", "an attestation")},
		{"layer without a type", manifestType, layer(""), "without a media type"},
		{"bad layer digest", manifestType, edit(`"digest":"`+sum+`"`, `"digest":"sha256:../../x"`), "layer 0"},
		{"no layer digest", manifestType, edit(`"digest":"`+sum+`"`, `"digest":""`), "layer 0"},
		{"negative layer size", manifestType, edit(`"size":10}`, `"size":-10}`), "size -10"},
		{"layer size too large for its type", manifestType, edit(`"size":10}`, `"size":1e30}`), "manifest"},
		{"bad config digest", manifestType, `{"config":{"mediaType":"` + imageConfig + `","digest":"sha256:1","size":2},"layers":[{"mediaType":"` + imageLayer + `","digest":"` + sum + `"}]}`, `"sha256:1"`},
		{"config not JSON", manifestType, config("garbage"), "config"},
		{"config an array", manifestType, config("[]"), "config"},
		{"config empty", manifestType, config(""), "config"},
		{"config without diff_ids", manifestType, config("{}"), "0 diff_ids for 1 layers"},
		{"config null", manifestType, config("null"), "0 diff_ids for 1 layers"},
		{"too many diff_ids", manifestType, config(`{"rootfs":{"diff_ids":["` + sum + `","` + sum + `"]}}`), "2 diff_ids for 1 layers"},
		{"bad diff_id", manifestType, config(`{"rootfs":{"diff_ids":["sha256:XX"]}}`), `diff_id 0: "sha256:XX"`},
		{"bad created", manifestType, config(strings.Replace(goodConfig, "{", `{"created":"yesterday",`, 1)), "config"},
		{"another rootfs", manifestType, config(`{"rootfs":{"type":"layers+base","diff_ids":["` + sum + `"]}}`), `"layers+base"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := remote.Open(t.Context(), store.Source("quay.io/a/b:c", store.Put(c.stated, []byte(c.content))), "")
			if !errors.Is(err, remote.ErrUnsupported) {
				t.Fatalf("%s: got error %v, want %v", c.content, err, remote.ErrUnsupported)
			}
			if !strings.HasPrefix(err.Error(), "quay.io/a/b:c: ") || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: got error %q, want one that says %q", c.content, err, c.says)
			}
		})
	}
}

func TestOpenRefusesSizesUnread(t *testing.T) {
	store := sourcetest.NewStore()
	good := manifestOf(store, manifestType, imageConfig, goodConfig, imageLayer)
	huge := strings.Replace(good, fmt.Sprintf(`"size":%d`, len(goodConfig)), fmt.Sprintf(`"size":%d`, 16<<20+1), 1)
	for name, top := range map[string]ocispec.Descriptor{
		"manifest": {MediaType: manifestType, Digest: store.Put("", []byte(good)).Digest, Size: 8<<20 + 1},
		"negative": {MediaType: manifestType, Digest: store.Put("", []byte(good)).Digest, Size: -1},
		"config":   store.Put(manifestType, []byte(huge)),
		"entry": store.AddIndex(ocispec.Descriptor{MediaType: manifestType, Digest: sum, Size: 1 << 40,
			Platform: &ocispec.Platform{OS: "linux", Architecture: "amd64"}}),
	} {
		src := &countingSource{Source: store.Source("test", top)}
		_, err := remote.Open(t.Context(), src, "linux/amd64")
		if !errors.Is(err, remote.ErrUnsupported) || !strings.Contains(err.Error(), "bytes; imgfs reads up to") {
			t.Errorf("%s: got error %v, want %v for the size", name, err, remote.ErrUnsupported)
		}
		if len(src.fetched) > 1 {
			t.Errorf("%s: fetched %s", name, src.fetched)
		}
	}
}

// FuzzOpen gives Open any manifest or image index and any config. What it
// lets pass has what its callers rely on.
func FuzzOpen(f *testing.F) {
	store := sourcetest.NewStore()
	good := manifestOf(store, manifestType, imageConfig, goodConfig, imageLayer)
	f.Add(manifestType, []byte(good), []byte(goodConfig))
	f.Add("", []byte(`{"manifests":[{"mediaType":"`+manifestType+`","digest":"`+sum+`","size":5}]}`), []byte("{}"))
	f.Add(indexType, []byte(`{"manifests":[{"mediaType":"`+indexType+`","digest":"`+sum+`","size":5,"platform":{"os":"linux"}}]}`), []byte("null"))
	f.Add(schema1, []byte(`{"schemaVersion":1}`), []byte(""))
	f.Fuzz(func(t *testing.T, stated string, content, config []byte) {
		store := sourcetest.NewStore()
		store.Put("", config)
		store.Put("", []byte(good))
		top := store.Put(stated, content)
		img, err := remote.Open(t.Context(), store.Source("test", top), "")
		if err != nil {
			if !strings.HasPrefix(err.Error(), "test: ") {
				t.Errorf("the error does not begin with the image's name: %v", err)
			}
			return
		}
		for _, l := range img.Layers {
			if !isDigest(l.Digest()) || !isDigest(l.DiffID) || l.Size() < 0 {
				t.Errorf("a bad layer was let pass: %+v", l)
			}
		}
		in := remote.Inspect(img)
		if len(in.Layers) != len(img.Layers) || len(in.DiffIDs) != len(img.Layers) {
			t.Errorf("Inspect: got %d layers and %d diff_ids, want %d", len(in.Layers), len(in.DiffIDs), len(img.Layers))
		}
	})
}

// isDigest says whether d has the form of a digest, of any algorithm.
func isDigest(d digest.Digest) bool {
	err := d.Validate()
	return err == nil || errors.Is(err, digest.ErrDigestUnsupported)
}
