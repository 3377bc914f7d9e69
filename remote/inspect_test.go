package remote_test

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"slices"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgfs/imgfs/remote"
	"github.com/imgfs/imgfs/remote/ocilayout"
	"github.com/imgfs/imgfs/remote/sourcetest"
	"github.com/imgfs/imgfs/testdata/testenv"
)

// TestInspectLikeSkopeo compares with what the skopeo that is installed
// prints of the same layouts.
func TestInspectLikeSkopeo(t *testing.T) {
	testenv.Slow(t)
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed")
	}
	layers := []sourcetest.Layer{{Content: []byte("one")}, {Content: []byte("two")}}
	full := map[string]any{
		"created":        "2024-02-29T12:34:56.123456789+02:00",
		"docker_version": "27.1",
		"author":         "nobody",
		"config":         map[string]any{"Env": []string{"PATH=/bin", "A=<b>&c"}, "Labels": map[string]string{"z": "1", "a": "<&>", "ü": "ö"}, "Cmd": []string{"sh"}},
	}
	hollow := map[string]any{"config": map[string]any{"Env": []string{}, "Labels": map[string]string{}}}
	for _, c := range []struct {
		name string
		img  sourcetest.Image
		// index makes it one of two images of an image index.
		index bool
	}{
		{name: "OCI", img: sourcetest.Image{Config: full, Layers: layers}},
		{name: "OCI, nothing stated", img: sourcetest.Image{Layers: layers}},
		{name: "OCI, empty lists", img: sourcetest.Image{Config: hollow, Layers: layers}},
		{name: "OCI, null config", img: sourcetest.Image{Config: map[string]any{"config": nil, "created": nil}, Layers: layers}},
		{name: "Docker", img: sourcetest.Image{Docker: true, Config: full, Layers: layers}},
		{name: "Docker, nothing stated", img: sourcetest.Image{Docker: true, Layers: layers}},
		{name: "Docker, empty lists", img: sourcetest.Image{Docker: true, Config: hollow, Layers: layers}},
		{name: "one layer twice", img: sourcetest.Image{Layers: slices.Repeat(layers[:1], 2)}},
		{name: "image index", img: sourcetest.Image{Config: full, Layers: layers}, index: true},
		{name: "image index of Docker's", img: sourcetest.Image{Docker: true, Layers: layers}, index: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := sourcetest.NewStore()
			c.img.Platform = "linux/arm64"
			top := store.AddImage(c.img)
			if c.index {
				top = store.AddIndex(store.AddImage(oneLayer("linux/amd64")), top)
			}
			dir := t.TempDir()
			if err := store.WriteLayout(dir, top); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(skopeo, "--override-os", "linux", "--override-arch", "arm64", "inspect", "oci:"+dir)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			want, err := cmd.Output()
			if err != nil {
				t.Fatalf("skopeo inspect: %v: %s", err, &stderr)
			}
			src, err := ocilayout.Open(dir, "")
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			img, err := remote.Open(t.Context(), src, "linux/arm64")
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(remote.Inspect(img), "", "    ")
			if err != nil {
				t.Fatal(err)
			}
			compareInspections(t, got, want)
		})
	}
}

// compareInspections checks that got has all members of want, in its order.
// Older versions of skopeo have no LayersData.
func compareInspections(t *testing.T, got, want []byte) {
	t.Helper()
	gotNames, gotValues := members(t, got)
	wantNames, wantValues := members(t, want)
	kept := slices.DeleteFunc(slices.Clone(gotNames), func(name string) bool { return !slices.Contains(wantNames, name) })
	if !slices.Equal(kept, wantNames) {
		t.Errorf("members: got %q, want %q", gotNames, wantNames)
	}
	for name, v := range wantValues {
		if !bytes.Equal(gotValues[name], v) {
			t.Errorf("%s: got %s, want %s", name, gotValues[name], v)
		}
	}
}

// members returns the names of a JSON object's members, in order, and their
// values.
func members(t *testing.T, object []byte) (names []string, values map[string]json.RawMessage) {
	t.Helper()
	values = make(map[string]json.RawMessage)
	d := json.NewDecoder(bytes.NewReader(object))
	if _, err := d.Token(); err != nil {
		t.Fatalf("%s: %v", object, err)
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			t.Fatalf("%s: %v", object, err)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			t.Fatalf("%s: %v", object, err)
		}
		names = append(names, name.(string))
		values[name.(string)] = value
	}
	return names, values
}

func TestInspect(t *testing.T) {
	store := sourcetest.NewStore()
	layers := []sourcetest.Layer{{Content: []byte("one")}, {Content: []byte("two"), MediaType: ocispec.MediaTypeImageLayerGzip, DiffID: sum}}
	top := store.AddIndex(store.AddImage(sourcetest.Image{Platform: "linux/s390x", Layers: layers}))
	img, err := remote.Open(t.Context(), store.Source("test", top), "linux/s390x")
	if err != nil {
		t.Fatal(err)
	}
	in := remote.Inspect(img)
	if in.Digest != top.Digest {
		t.Errorf("Digest: got %s, want that of the image index, %s", in.Digest, top.Digest)
	}
	if in.ImageID != img.ConfigDescriptor.Digest || len(in.DiffIDs) != 2 || in.DiffIDs[1] != sum {
		t.Errorf("got ImageID %s and DiffIDs %s", in.ImageID, in.DiffIDs)
	}
	last := in.LayersData[1]
	if in.Architecture != "s390x" || in.Os != "linux" || last.MIMEType != ocispec.MediaTypeImageLayerGzip || last.Size != 3 || last.Digest != in.Layers[1] {
		t.Errorf("got %+v", in)
	}
}
