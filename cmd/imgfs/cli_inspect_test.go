//go:build linux

package main

import (
	"encoding/json"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/imgfs/imgfs/remote/registry/registrytest"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/labimage"
	"github.com/imgfs/imgfs/testdata/testenv"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// members returns the names of a JSON object's members in their order, and
// their values.
func members(t *testing.T, text string) (names []string, values map[string]any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	if err := json.Unmarshal([]byte(text), &values); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	if _, err := d.Token(); err != nil { // {
		t.Fatal(err)
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name.(string))
		var skipped json.RawMessage
		if err := d.Decode(&skipped); err != nil {
			t.Fatal(err)
		}
	}
	return names, values
}

// checkInspect compares imgfs inspect with skopeo inspect, and with what the
// image itself is.
func checkInspect(t *testing.T, image string) {
	t.Helper()
	cache := "--cache-dir=" + t.TempDir()
	name := image
	if !strings.Contains(image, "-archive:") && !strings.HasPrefix(image, "oci:") {
		name = "docker://" + image
	}
	want := tool(t, "skopeo", "inspect", "--tls-verify=false", name)
	got := succeed(t, "inspect", cache, image)
	wantNames, wantValues := members(t, want)
	gotNames, values := members(t, got)
	if i := slices.Index(wantNames, "Layers"); !slices.Contains(wantNames, "LayersData") && i >= 0 {
		// skopeo has it since 1.10.
		wantNames = slices.Insert(wantNames, i+1, "LayersData")
		wantValues["LayersData"] = values["LayersData"]
		checkLayersData(t, succeed(t, "inspect", "--raw", cache, image), values)
	}
	if !slices.Equal(gotNames, append(wantNames, "ImageID", "DiffIDs")) {
		t.Errorf("imgfs inspect %s has %q, want those of skopeo and two more: %q", image, gotNames, wantNames)
	}
	for _, name := range wantNames {
		if !reflect.DeepEqual(values[name], wantValues[name]) {
			t.Errorf("%s: got %s %v, skopeo has %v", image, name, values[name], wantValues[name])
		}
	}
	raw, config := succeed(t, "inspect", "--raw", cache, image), succeed(t, "inspect", "--config", cache, image)
	if d := digest.FromString(raw).String(); d != values["Digest"] {
		t.Errorf("%s: --raw has %s, Digest is %s", image, d, values["Digest"])
	}
	if d := digest.FromString(config).String(); d != values["ImageID"] {
		t.Errorf("%s: --config has %s, ImageID is %s", image, d, values["ImageID"])
	}
	if want := tool(t, "skopeo", "inspect", "--tls-verify=false", "--raw", name); raw != want {
		t.Errorf("%s: --raw\n%s\nskopeo inspect --raw\n%s", image, raw, want)
	}
	var c struct {
		RootFS struct {
			DiffIDs []any `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		t.Fatal(err)
	}
	if got := values["DiffIDs"].([]any); !slices.Equal(got, c.RootFS.DiffIDs) {
		t.Errorf("%s: DiffIDs is %v, the config has %v", image, got, c.RootFS.DiffIDs)
	}
}

// checkLayersData compares LayersData with a manifest.
func checkLayersData(t *testing.T, manifest string, values map[string]any) {
	t.Helper()
	var m struct {
		Layers []struct {
			MediaType string  `json:"mediaType"`
			Digest    string  `json:"digest"`
			Size      float64 `json:"size"`
		} `json:"layers"`
	}
	if err := json.Unmarshal([]byte(manifest), &m); err != nil {
		t.Fatal(err)
	}
	data := values["LayersData"].([]any)
	if len(data) != len(values["Layers"].([]any)) || m.Layers != nil && len(m.Layers) != len(data) {
		t.Fatalf("got %d of LayersData for %d Layers, the manifest has %d", len(data), len(values["Layers"].([]any)), len(m.Layers))
	}
	for i, l := range m.Layers { // none in an image index
		want := map[string]any{"MIMEType": l.MediaType, "Digest": l.Digest, "Size": l.Size, "Annotations": nil}
		if !reflect.DeepEqual(data[i], want) {
			t.Errorf("LayersData %d: got %v, want %v", i, data[i], want)
		}
	}
}

// imageKinds puts images of several kinds into a store.
func imageKinds(t *testing.T, store *sourcetest.Store) map[string]ocispec.Descriptor {
	t.Helper()
	layers := []sourcetest.Layer{{Content: tarOf(t)}, {Content: []byte(strings.Repeat("\x00", 1024))}}
	full := map[string]any{
		"created": "2024-02-03T04:05:06.789Z", "docker_version": "20.10.7",
		"config": map[string]any{"Env": []string{"PATH=/bin", "A=<&>"}, "Labels": map[string]string{"b": "2", "a": "1 & <2>"}},
	}
	attestation := store.AddImage(sourcetest.Image{Layers: layers[:1], Config: map[string]any{"author": "none"}})
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	return map[string]ocispec.Descriptor{
		"oci":    store.AddImage(sourcetest.Image{Layers: layers, Config: full}),
		"bare":   store.AddImage(sourcetest.Image{Layers: layers[:1]}),
		"docker": store.AddImage(sourcetest.Image{Docker: true, Layers: layers, Config: full}),
		"old":    store.AddImage(sourcetest.Image{Docker: true, Layers: layers[:1]}),
		"empty":  store.AddImage(sourcetest.Image{Config: full}),
		"index": store.AddIndex(store.AddImage(sourcetest.Image{Platform: "linux/s390x", Layers: layers[:1]}), attestation,
			store.AddImage(sourcetest.Image{Layers: layers, Config: full})),
	}
}

func TestInspectIsSkopeos(t *testing.T) {
	testenv.Slow(t)
	need(t, "skopeo")
	alone(t)
	reg := registrytest.New(t, &registrytest.Options{TagPage: 2})
	store := sourcetest.NewStore()
	for tag, desc := range imageKinds(t, store) {
		publishStore(reg, store, desc)
		reg.Tag("app", tag, desc.Digest)
	}
	for _, tag := range []string{"oci", "bare", "docker", "old", "empty", "index"} {
		t.Run(tag, func(t *testing.T) { checkInspect(t, reg.Host()+"/app:"+tag) })
	}
	t.Run("digest", func(t *testing.T) {
		_, values := members(t, succeed(t, "inspect", "--cache-dir", t.TempDir(), reg.Host()+"/app:index"))
		checkInspect(t, reg.Host()+"/app@"+values["Digest"].(string))
	})
}

func TestInspectFilesIsSkopeos(t *testing.T) {
	testenv.Slow(t)
	need(t, "skopeo")
	home := alone(t)
	store := sourcetest.NewStore()
	layout := filepath.Join(home, "layout")
	var entries []ocispec.Descriptor
	for tag, desc := range imageKinds(t, store) {
		if tag == "oci" || tag == "bare" || tag == "empty" {
			entries = append(entries, sourcetest.Tagged(desc, tag))
		}
	}
	if err := store.WriteLayout(layout, entries...); err != nil {
		t.Fatal(err)
	}
	ociArchive, dockerArchive := filepath.Join(home, "oci.tar"), filepath.Join(home, "docker.tar")
	tool(t, "skopeo", "copy", "oci:"+layout+":oci", "oci-archive:"+ociArchive+":v1")
	tool(t, "skopeo", "copy", "oci:"+layout+":oci", "docker-archive:"+dockerArchive+":app:v1")
	for _, image := range []string{"oci:" + layout + ":oci", "oci:" + layout + ":bare", "oci:" + layout + ":empty", "oci-archive:" + ociArchive, "oci-archive:" + ociArchive + ":v1",
		"docker-archive:" + dockerArchive, "docker-archive:" + dockerArchive + ":app:v1"} {
		t.Run(strings.ReplaceAll(image, home, ""), func(t *testing.T) { checkInspect(t, image) })
	}
}

// TestInspectWithoutTags has a registry that does not list tags: the rest is
// worth printing.
func TestInspectWithoutTags(t *testing.T) {
	alone(t)
	reg := registrytest.New(t, nil)
	image, _ := publish(t, reg, small)
	reg.Inject(registrytest.Tags, registrytest.Always(registrytest.Status(404)))
	r := invoke(t, "inspect", "--cache-dir", t.TempDir(), image)
	_, values := members(t, r.stdout)
	if tags := values["RepoTags"]; r.code != 0 || len(tags.([]any)) != 0 {
		t.Errorf("got RepoTags %v and exit code %d, want [] and 0", tags, r.code)
	}
	if want := "imgfs: RepoTags is empty: tags of " + reg.Host() + "/app: not found"; !strings.HasPrefix(r.stderr, want) {
		t.Errorf("got on stderr %q, want %q…", r.stderr, want)
	}
}

// TestInspectJSON: --json is taken, as it is by every command that prints something, and
// changes nothing.
func TestInspectJSON(t *testing.T) {
	layout := filepath.Join(t.TempDir(), "layout")
	if _, err := labimage.Write(layout, small); err != nil {
		t.Fatal(err)
	}
	image := "oci:" + layout
	if plain, asked := succeed(t, "inspect", image), succeed(t, "inspect", "--json", image); plain != asked || !strings.Contains(plain, `"Digest"`) {
		t.Errorf("inspect prints\n%s\nand with --json\n%s", plain, asked)
	}
}
