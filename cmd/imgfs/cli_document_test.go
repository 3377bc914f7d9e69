//go:build linux

package main

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// namedThings puts into a store what a name can mean besides an image for this
// machine.
func namedThings(store *sourcetest.Store) map[string]ocispec.Descriptor {
	layers := []sourcetest.Layer{{Content: []byte("x")}}
	artifact := func(artifactType, config, layer string) ocispec.Descriptor {
		return store.PutJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
			MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType,
			Config: store.Put(config, []byte("{}")), Layers: []ocispec.Descriptor{store.Put(layer, []byte("layer"))},
		})
	}
	return map[string]ocispec.Descriptor{
		"windows":   store.AddIndex(store.AddImage(sourcetest.Image{Platform: "windows(10.0.20348.1)/amd64", Layers: layers})),
		"empty":     store.AddIndex(),
		"null":      store.Put(ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"mediaType":"`+ocispec.MediaTypeImageIndex+`","manifests":null}`)),
		"cache":     store.AddIndex(ocispec.Descriptor{MediaType: "application/vnd.buildkit.cacheconfig.v0", Digest: digest.FromString("c"), Size: 1}),
		"helm":      artifact("", "application/vnd.cncf.helm.config.v1+json", "application/vnd.cncf.helm.chart.content.v1.tar+gzip"),
		"wasm":      artifact("", "application/vnd.wasm.config.v0+json", "application/wasm"),
		"artifact":  artifact("application/vnd.example", "application/vnd.oci.empty.v1+json", "text/plain"),
		"signature": artifact("", ocispec.MediaTypeImageConfig, "application/vnd.dev.cosign.simplesigning.v1+json"),
		"bundle":    artifact("application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.oci.empty.v1+json", "application/vnd.dev.sigstore.bundle.v0.3+json"),
		"s390x":     store.AddImage(sourcetest.Image{Platform: "linux/s390x", Layers: layers}),
	}
}

// TestInspectRawIsWhatTheNameMeans: inspect --raw prints any manifest or image index
// whole, from a layout, a registry, and offline; nothing but it is fetched, and no
// platform is chosen. Of what cannot be mounted ls says what it is.
func TestInspectRawIsWhatTheNameMeans(t *testing.T) {
	home := alone(t)
	store := sourcetest.NewStore()
	reg := registrytest.New(t, nil)
	kinds := namedThings(store)
	var entries []ocispec.Descriptor
	for _, tag := range slices.Sorted(maps.Keys(kinds)) {
		entries = append(entries, sourcetest.Tagged(kinds[tag], tag))
		publishStore(reg, store, kinds[tag])
		reg.Tag("app", tag, kinds[tag].Digest)
	}
	layout := filepath.Join(home, "layout")
	if err := store.WriteLayout(layout, entries...); err != nil {
		t.Fatal(err)
	}
	cache := "--cache-dir=" + t.TempDir()
	for _, e := range entries {
		tag := e.Annotations[ocispec.AnnotationRefName]
		content, _ := store.Get(e.Digest)
		image := reg.Host() + "/app:" + tag
		reg.Forget()
		for _, args := range [][]string{{"oci:" + layout + ":" + tag}, {"--platform=linux/arm64", "oci:" + layout + ":" + tag}, {image}, {"--offline", image}, {"--offline", "--platform=linux/riscv64", image}} {
			if got := succeed(t, append([]string{"inspect", "--raw", cache}, args...)...); got != string(content) {
				t.Errorf("%q: got %q, want %q", args, got, content)
			}
		}
		if n := reg.Count(registrytest.Blob); n != 0 {
			t.Errorf("%s: %d blobs were fetched", tag, n)
		}
	}
	for tag, want := range map[string][]string{
		"windows":   {"there is windows(10.0.20348.1)/amd64", "hint: choose one with --platform, as in --platform 'windows(10.0.20348.1)/amd64'"},
		"empty":     {"the image index is empty"},
		"null":      {"the image index is empty"},
		"cache":     {"the image index lists a build cache"},
		"helm":      {"a Helm chart"},
		"wasm":      {"a WebAssembly module"},
		"artifact":  {`an artifact of type "application/vnd.example"`},
		"signature": {"a signature"},
		"bundle":    {"a signature"},
	} {
		r := invoke(t, "ls", cache, "--platform=linux/amd64", "oci:"+layout+":"+tag)
		for _, words := range want {
			if r.code == 0 || !strings.Contains(r.stderr, words) {
				t.Errorf("ls of %s: exit code %d, stderr has no %q:\n%s", tag, r.code, words, r.stderr)
			}
		}
		if len(want) == 1 && strings.Contains(r.stderr, "hint:") {
			t.Errorf("ls of %s has a hint, and nothing can be chosen:\n%s", tag, r.stderr)
		}
	}
}

// TestInspectConfigOfArtifacts: as skopeo inspect --config --raw, --config prints the
// blob that an artifact has in place of a config.
func TestInspectConfigOfArtifacts(t *testing.T) {
	home := alone(t)
	store := sourcetest.NewStore()
	kinds := namedThings(store)
	layout := filepath.Join(home, "layout")
	if err := store.WriteLayout(layout, sourcetest.Tagged(kinds["helm"], "helm"), sourcetest.Tagged(kinds["windows"], "windows"), sourcetest.Tagged(kinds["empty"], "empty")); err != nil {
		t.Fatal(err)
	}
	if got := succeed(t, "inspect", "--config", "oci:"+layout+":helm"); got != "{}" {
		t.Errorf("got %q, want {}", got)
	}
	if got := succeed(t, "inspect", "--config", "--platform=windows/amd64", "oci:"+layout+":windows"); !strings.Contains(got, `"10.0.20348.1"`) {
		t.Errorf("got %q", got)
	}
	for image, words := range map[string]string{"windows": "no such platform: linux/amd64", "empty": "the image index is empty", "absent": `no image "absent"; there is "helm"`} {
		if r := invoke(t, "inspect", "--config", "--platform=linux/amd64", "oci:"+layout+":"+image); r.code == 0 || !strings.Contains(r.stderr, words) {
			t.Errorf("%s: exit code %d, stderr %q has no %q", image, r.code, r.stderr, words)
		}
	}
}

// TestAmbiguousNames: a name that two images have is refused, with what to write.
func TestAmbiguousNames(t *testing.T) {
	home := alone(t)
	store := sourcetest.NewStore()
	layout := filepath.Join(home, "a layout")
	var entries []ocispec.Descriptor
	for _, name := range []string{"alpha", "beta"} {
		desc := sourcetest.Tagged(store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: tarOf(t), MediaType: ocispec.MediaTypeImageLayer}}, Config: map[string]any{"author": name}}), "latest")
		desc.Annotations["io.containerd.image.name"] = "docker.io/library/" + name + ":latest"
		desc.Platform = nil
		entries = append(entries, desc)
	}
	if err := store.WriteLayout(layout, entries...); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"ls"}, {"inspect"}, {"inspect", "--raw"}, {"inspect", "--config"}} {
		r := invoke(t, append(args, "oci:"+layout+":latest")...)
		checkRefusal(t, r, 1, []string{"oci:" + layout, `"latest" is ambiguous`, `"docker.io/library/alpha:latest", "docker.io/library/beta:latest"`},
			"say which one, as in 'oci:"+layout+":docker.io/library/alpha:latest'")
		succeed(t, append(args, "oci:"+layout+":docker.io/library/beta:latest")...)
	}
	if got := succeed(t, "inspect", "--config", "oci:"+layout+":beta"); !strings.Contains(got, `"beta"`) {
		t.Errorf("got %q", got)
	}
}

// TestWrongSizeIsAWarning: what has the right digest is read, once with the size that
// is stated wrong and once more from the cache.
func TestWrongSizeIsAWarning(t *testing.T) {
	home := alone(t)
	store := sourcetest.NewStore()
	top := store.AddImage(sourcetest.Image{Layers: []sourcetest.Layer{{Content: tarOf(t)}}})
	manifest, _ := store.Get(top.Digest)
	wrong := store.Put(top.MediaType, []byte(strings.Replace(string(manifest), `"size":1024}]`, `"size":99999999999999}]`, 1)))
	if wrong.Digest == top.Digest {
		t.Fatal("the manifest has no layer of 1024 bytes")
	}
	layout := filepath.Join(home, "layout")
	if err := store.WriteLayout(layout, sourcetest.Tagged(top, "right"), sourcetest.Tagged(wrong, "wrong")); err != nil {
		t.Fatal(err)
	}
	for _, order := range [][]string{{"wrong", "right", "wrong"}, {"right", "wrong"}} {
		cache := "--cache-dir=" + t.TempDir()
		for _, tag := range order {
			r := invoke(t, "ls", cache, "oci:"+layout+":"+tag)
			if warned := strings.Contains(r.stderr, "is said to have 99999999999999 bytes and has 1024; its digest decides"); r.code != 0 || warned != (tag == "wrong") {
				t.Errorf("%s of %v: exit code %d, stderr %q", tag, order, r.code, r.stderr)
			}
		}
	}
	if r := invoke(t, "ls", "--cache-dir="+t.TempDir(), "--max-layer-size=1KiB", "oci:"+layout+":wrong"); r.code != 0 {
		t.Errorf("a limit that holds: exit code %d, stderr %q", r.code, r.stderr)
	}
	if r := invoke(t, "ls", "--cache-dir="+t.TempDir(), "--max-layer-size=1000", "oci:"+layout+":wrong"); r.code == 0 || !strings.Contains(r.stderr, "--max-layer-size") {
		t.Errorf("a limit that does not hold: exit code %d, stderr %q", r.code, r.stderr)
	}
}
